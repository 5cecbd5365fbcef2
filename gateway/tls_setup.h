/* SPDX-License-Identifier: Apache-2.0 */
/* From the configuration and its loaded files to TLS contexts. Main thread. */
#pragma once

#include "gateway/conf/conf.h"
#include "gateway/tls_files.h"
#include "lib/tls_client.h"
#include "lib/tls_server.h"

/* Contexts of one listener for one worker; NULL with the sentence in err. */
struct tls_server *tls_setup_listener(const struct gw_tls *tls, const struct tls_files *files,
				      struct err *err);
/* The same for connections to a service. */
struct tls_client *tls_setup_service(const struct gw_service *service,
				     const struct tls_files *files, bool is_pooled,
				     struct err *err);
