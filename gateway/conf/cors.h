/* SPDX-License-Identifier: Apache-2.0 */
/* The member "cors" of routes and of their defaults. */
#pragma once

#include "lib/conf.h"

extern const struct conf_object gw_cors_object; /* struct gw_cors of cors.h */
