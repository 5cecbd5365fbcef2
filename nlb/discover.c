/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/discover.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/json.h"
#include "lib/log.h"
#include "nlb/vips.h"
#include "registry/client.h"

struct discover {
	struct loop *loop;
	struct vips *vips;
	struct reg_client *client;
	struct str *urls; /* of the client: another set needs another client */
	size_t url_count;
	char *cache;
	struct list apps;
};

struct app {
	struct list node;
	struct discover *discover;
	bool is_wanted;
	struct reg_list *list; /* the latest, NULL before the first */
	char name[REG_APP_MAX + 1];
};

static void list_instances(struct vip *vip, const struct reg_list *list)
{
	CLEANUP(cleanup_free) struct gateway_listing *out = calloc(list->count + 1, sizeof(*out));
	size_t count = 0;

	if (!out) {
		log_error("vip=%s: out of memory, its gateways stay as they are", vip->name);
		return;
	}
	for (size_t i = 0; i < list->count; i++) {
		const struct reg_instance *instance = &list->instances[i];
		enum reg_status status = reg_instance_status(instance);
		struct gateway_listing *l = &out[count];

		if (status != REG_UP && status != REG_OUT_OF_SERVICE)
			continue;
		if (reg_instance_addr(instance, &l->address) != 0) {
			log_warn("vip=%s gateway=%.*s: its address %.*s is none, left out",
				 vip->name, STR_ARG(instance->id), STR_ARG(instance->address));
			continue;
		}
		net_set_port(&l->address, 0); /* that of the VIP counts */
		l->name = instance->id;
		l->weight = instance->weight;
		l->is_draining = status == REG_OUT_OF_SERVICE;
		count++;
	}
	vip_list(vip, out, count);
}

static bool uses(const struct vip *vip, const struct app *app)
{
	char name[REG_APP_MAX + 1];

	return vip->conf->discover.p && reg_app_name(vip->conf->discover, name) &&
	       strcmp(name, app->name) == 0;
}

static void pass_on(struct app *app)
{
	struct vip *vip;

	if (!app->list)
		return;
	vips_for_each (vip, app->discover->vips) {
		if (uses(vip, app))
			list_instances(vip, app->list);
	}
}

static void on_list(struct reg_list *list, void *arg)
{
	struct app *app = arg;

	reg_list_unref(&app->list);
	app->list = reg_list_ref(list);
	pass_on(app);
}

static void on_event(enum reg_client_event event, const char *detail, void *arg)
{
	(void)arg;
	switch (event) {
	case REG_CLIENT_CONNECTED:
		log_info("registry: connected to %s", detail);
		break;
	case REG_CLIENT_LOST:
		log_warn("registry: lost, the gateways known stay in use: %s", detail);
		break;
	case REG_CLIENT_CACHE:
	case REG_CLIENT_SELF:
		log_warn("registry: %s", detail);
		break;
	default:
		break;
	}
}

struct discover *discover_new(struct loop *loop, struct vips *vips)
{
	struct discover *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->loop = loop;
	d->vips = vips;
	list_init(&d->apps);
	return d;
}

static void app_free(struct app *app)
{
	if (app->discover->client)
		reg_client_unwatch(app->discover->client, str_from(app->name));
	reg_list_unref(&app->list);
	list_remove(&app->node);
	free(app);
}

static void urls_free(struct discover *d)
{
	for (size_t i = 0; i < d->url_count; i++)
		free((void *)(uintptr_t)d->urls[i].p);
	free(d->urls);
	free(d->cache);
	d->urls = NULL;
	d->cache = NULL;
	d->url_count = 0;
}

void discover_free(struct discover **dp)
{
	struct discover *d = *dp;

	if (!d)
		return;
	while (!list_empty(&d->apps))
		app_free(container_of(d->apps.next, struct app, node));
	reg_client_free(&d->client);
	urls_free(d);
	free(d);
	*dp = NULL;
}

static bool has_cache(const struct discover *d, const struct nlb_conf *conf)
{
	if (!d->cache || !conf->registry_cache.p)
		return !d->cache == !conf->registry_cache.p;
	return str_eqz(conf->registry_cache, d->cache);
}

static bool has_urls(const struct discover *d, const struct nlb_conf *conf)
{
	if (d->url_count != conf->registry_urls_count)
		return false;
	for (size_t i = 0; i < d->url_count; i++) {
		if (!str_eq(d->urls[i], conf->registry_urls[i]))
			return false;
	}
	return true;
}

/* A client for these URLs in place of the one there is. */
static int set_urls(struct discover *d, const struct nlb_conf *conf, struct err *err)
{
	struct reg_client_config config = { .urls = conf->registry_urls,
					    .url_count = conf->registry_urls_count,
					    .cache = conf->registry_cache.p,
					    .access = { .token = conf->registry_token.p,
							.ca = conf->registry_ca.p,
							.certificate = conf->registry_certificate.p,
							.key = conf->registry_key.p },
					    .on_event = on_event };
	struct reg_client *client;

	if (d->client && has_urls(d, conf) && has_cache(d, conf))
		return reg_client_set_access(d->client, &config.access, err);
	client = reg_client_new(d->loop, &config, err);
	if (!client)
		return -EINVAL;
	while (!list_empty(&d->apps))
		app_free(container_of(d->apps.next, struct app, node));
	reg_client_free(&d->client);
	urls_free(d);
	d->client = client;
	if (conf->registry_cache.p) {
		d->cache = strndup(conf->registry_cache.p, conf->registry_cache.len);
		if (!d->cache)
			return err_set(err, -ENOMEM, "out of memory");
	}
	d->urls = calloc(conf->registry_urls_count, sizeof(*d->urls));
	for (size_t i = 0; d->urls && i < conf->registry_urls_count; i++) {
		struct str url = conf->registry_urls[i];

		d->urls[i] = str_of(strndup(url.p, url.len), url.len);
		if (!d->urls[i].p)
			return err_set(err, -ENOMEM, "out of memory");
		d->url_count++;
	}
	return d->urls ? 0 : err_set(err, -ENOMEM, "out of memory");
}

static struct app *app_find(struct discover *d, const char *name)
{
	list_for_each (n, &d->apps) {
		struct app *app = container_of(n, struct app, node);

		if (strcmp(app->name, name) == 0)
			return app;
	}
	return NULL;
}

static int want_app(struct discover *d, struct str name, struct err *err)
{
	char lower[REG_APP_MAX + 1];
	struct app *app;
	int rc;

	if (!reg_app_name(name, lower))
		return err_set(err, -EINVAL, "discover: \"%.*s\" is no name of an app",
			       STR_ARG(name));
	app = app_find(d, lower);
	if (app) {
		app->is_wanted = true;
		pass_on(app); /* a VIP may have come to it */
		return 0;
	}
	app = calloc(1, sizeof(*app));
	if (!app)
		return err_set(err, -ENOMEM, "out of memory");
	app->discover = d;
	app->is_wanted = true;
	memcpy(app->name, lower, sizeof(lower));
	list_add_tail(&d->apps, &app->node);
	rc = reg_client_watch(d->client, str_from(app->name), on_list, app);
	if (rc)
		return err_set(err, rc, "discover: watching \"%s\": %s", app->name, strerror(-rc));
	return 0;
}

int discover_apply(struct discover *d, const struct nlb_conf *conf, struct err *err)
{
	int rc = conf->registry_urls_count ? set_urls(d, conf, err) : 0;

	list_for_each (n, &d->apps)
		container_of(n, struct app, node)->is_wanted = false;
	for (size_t i = 0; !rc && i < conf->vips_count; i++) {
		if (conf->vips[i].discover.p)
			rc = want_app(d, conf->vips[i].discover, err);
	}
	list_for_each_safe (n, &d->apps) {
		struct app *app = container_of(n, struct app, node);

		if (!app->is_wanted)
			app_free(app);
	}
	return rc;
}

void discover_write_status(const struct discover *d, struct json_writer *w)
{
	struct reg_client_status status;

	if (!d->client) {
		json_add_null(w, "registry");
		return;
	}
	reg_client_get_status(d->client, &status);
	json_open(w, "registry", '{');
	json_add_bool(w, "connected", status.is_connected);
	json_addz(w, "url", status.url ? status.url : "");
	json_add_u64(w, "events", status.events);
	json_add_u64(w, "reconnects", status.reconnects);
	json_close(w, '}');
}
