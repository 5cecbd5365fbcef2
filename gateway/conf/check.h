/* SPDX-License-Identifier: Apache-2.0 */
/* Rules between members of the gateway's configuration: the `check` callbacks of its rows. */
#pragma once

struct conf;
struct gw_conf;

void gw_check_listener(struct conf *c, void *object);
void gw_check_tls_host(struct conf *c, void *object);
void gw_check_tls(struct conf *c, void *object);
void gw_check_service_tls(struct conf *c, void *object);
void gw_check_endpoint(struct conf *c, void *object);
void gw_check_service(struct conf *c, void *object);
void gw_check_version(struct conf *c, void *object);
void gw_check_redirect(struct conf *c, void *object);
void gw_check_respond(struct conf *c, void *object);
void gw_check_route(struct conf *c, void *object);
/* The whole file: names that refer to other parts become pointers, derived members are filled in.
 */
void gw_check_conf(struct conf *c, void *object);
/* Warnings: what is allowed and hardly meant. */
void gw_advise(struct conf *c, const struct gw_conf *conf);
/* Certificates, keys, key sets, and the folders of files that are written. */
void gw_check_files(struct conf *c, const struct gw_conf *conf);
