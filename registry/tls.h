/* SPDX-License-Identifier: Apache-2.0 */
/* registryd's certificates: loaded, given to the HTTP server, and again when a file changes. */
#pragma once

#include "lib/err.h"
#include "lib/http_server.h"
#include "lib/loop.h"
#include "registry/conf.h"

struct reg_tls;

/* Copies what it needs of the configuration. NULL with the sentence in err. */
struct reg_tls *reg_tls_new(struct loop *loop, struct http_server *server,
			    const struct reg_conf_tls *conf, struct err *err);
void reg_tls_free(struct reg_tls **tls);
