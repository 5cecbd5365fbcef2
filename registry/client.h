/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How gateway and NLB use the registry: watch the instances of some apps, and be an instance
 * oneself. On one event loop; only the lists may be handed to other threads. Never blocks, never
 * logs, and never takes a list away because the registry cannot be reached.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "lib/str.h"
#include "registry/instance.h"

struct loop;
struct reg_client;
struct reg_self;

/*
 * The instances of one app at one moment; never changes. Counted: each holder of a reference may
 * read it in its own thread. All statuses are in it: whoever balances takes those whose
 * reg_instance_status is REG_UP.
 */
struct reg_list {
	struct str app;     /* lower case */
	uint64_t index;     /* of the registry, 0 from the cache file */
	bool is_from_cache; /* read at start, not yet confirmed by a registry */
	size_t count;
	const struct reg_instance *instances;
};

struct reg_list *reg_list_ref(struct reg_list *list);
/* NULL inside is fine; clears the pointer. */
void reg_list_unref(struct reg_list **list);

enum reg_client_event {
	REG_CLIENT_CONNECTED, /* detail: the URL */
	REG_CLIENT_LOST,      /* detail: URL and why; tries again by itself. Once per outage. */
	REG_CLIENT_CACHE,     /* detail: what is wrong with the cache file */
	REG_CLIENT_SELF,      /* detail: the registry refused our registration, and why */
};

/* What the registries want to see. All may be NULL. */
struct reg_client_access {
	const char *token;
	/* For "https:" URLs, PEM files. */
	const char *ca;                /* whom to trust; NULL: whom the system trusts */
	const char *certificate, *key; /* shown when asked for */
};

/* Copied by reg_client_new. */
struct reg_client_config {
	const struct str *urls; /* "http://192.0.2.1:8761", "https://…", "unix:/path"; tried from a
				   random one */
	size_t url_count;
	struct reg_client_access access;
	bool may_resolve;  /* names in URLs, once and blocking: for command-line tools */
	const char *cache; /* file with the last known lists, or NULL */
	/* For the program's log; may be NULL. */
	void (*on_event)(enum reg_client_event event, const char *detail, void *arg);
	void *arg;
};

/* Checks the URLs, starts nothing. NULL with the sentence in err. */
struct reg_client *reg_client_new(struct loop *loop, const struct reg_client_config *config,
				  struct err *err);
/* The same with others from now on, for a reload: requests in progress go on as they began. 0, or
 * -errno with the sentence in err and nothing changed. */
int reg_client_set_access(struct reg_client *client, const struct reg_client_access *access,
			  struct err *err);
/* Stops all watches; a registration is left to its lease (see reg_self_stop). */
void reg_client_free(struct reg_client **client);

/*
 * Watches an app. on_list is called by the loop with each new list, and right at the start with the
 * one of the cache file, if there is one; it borrows the list for the call and takes a reference to
 * keep it. A registry that comes back knowing no instance of the app at all (it lost its memory)
 * does not empty the list; instances that are seen to leave do. Watching an app again replaces
 * on_list. Returns 0, -EINVAL for a bad name, -ENOMEM.
 */
int reg_client_watch(struct reg_client *client, struct str app,
		     void (*on_list)(struct reg_list *list, void *arg), void *arg);
void reg_client_unwatch(struct reg_client *client, struct str app);

/* Every watched app has a list: from a registry, or from the cache file. */
bool reg_client_is_ready(const struct reg_client *client);

struct reg_client_status {
	bool is_connected;
	const char *url;     /* the one in use or tried */
	uint64_t index;      /* of the last event */
	uint64_t events;     /* changes received */
	uint64_t reconnects; /* times a connection was lost */
};
void reg_client_get_status(const struct reg_client *client, struct reg_client_status *out);

/*
 * Registers an instance and keeps it registered: renews each third of the lease, registers again
 * when the registry does not know it any more. Uses the client's URLs. Everything is copied. NULL
 * with the sentence in err when the instance is not valid.
 */
struct reg_self *reg_self_start(struct reg_client *client, struct str app,
				const struct reg_instance *instance, struct err *err);
/* Says REG_OUT_OF_SERVICE before draining, REG_UP after. Takes effect at the registry at once if it
 * can be reached, else as soon as it can. */
void reg_self_set_status(struct reg_self *self, enum reg_status status);
/* Leaves the registration to its lease, and to whoever renews it from now on. Clears the pointer;
 * NULL inside is fine. */
void reg_self_forget(struct reg_self **self);
bool reg_self_is_registered(const struct reg_self *self);
/* Deregisters, then (at the latest after 2 s) calls on_done, which may be NULL. Clears the pointer.
 * The client must live until then, or be freed, which ends it without on_done. */
void reg_self_stop(struct reg_self **self, void (*on_done)(void *arg), void *arg);
