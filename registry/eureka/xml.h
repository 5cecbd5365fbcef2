/* SPDX-License-Identifier: Apache-2.0 */
/* XML as XStream writes it for Eureka: read into the JSON that says the same, and its names. */
#pragma once

#include <jansson.h>

#include "lib/buf.h"
#include "lib/err.h"
#include "lib/str.h"

#define EUREKA_XML_DEPTH    16
#define EUREKA_XML_ELEMENTS 4096

/*
 * The document, whose root must be <`root`>: elements become members, attributes "@name", the text
 * beside attributes "$". No document type is taken, so there are no entities but XML's own. Returns
 * the value of the root element, owned by the caller; NULL with the sentence in err.
 */
json_t *eureka_xml_read(struct str xml, const char *root, struct err *err);

/* Text between tags, escaped; what XML cannot hold becomes U+FFFD. */
void eureka_xml_text(struct buf *out, struct str text);
/* A key as the name of an element: "_" is "__", "$" is "_-", all else that no name may hold "_."
 * with four hex digits for each UTF-16 unit. */
void eureka_xml_name(struct buf *out, struct str key);
/* The key that a name stands for, appended; what is no escape stays as it is. */
void eureka_xml_key(struct buf *out, struct str name);
