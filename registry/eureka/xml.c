/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/eureka/xml.h"

#include <errno.h>
#include <expat.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "lib/cleanup.h"

#define REPLACEMENT "\xef\xbf\xbd"

/* --- UTF-8 ----------------------------------------------------------------------------------- */

static void put_utf8(struct buf *out, uint32_t c)
{
	if (c < 0x80) {
		buf_putc(out, (char)c);
	} else if (c < 0x800) {
		buf_putc(out, (char)(0xc0 | c >> 6));
		buf_putc(out, (char)(0x80 | (c & 0x3f)));
	} else if (c < 0x10000) {
		buf_putc(out, (char)(0xe0 | c >> 12));
		buf_putc(out, (char)(0x80 | (c >> 6 & 0x3f)));
		buf_putc(out, (char)(0x80 | (c & 0x3f)));
	} else {
		buf_putc(out, (char)(0xf0 | c >> 18));
		buf_putc(out, (char)(0x80 | (c >> 12 & 0x3f)));
		buf_putc(out, (char)(0x80 | (c >> 6 & 0x3f)));
		buf_putc(out, (char)(0x80 | (c & 0x3f)));
	}
}

/* Takes one character off the front; U+FFFD for bytes that are none. */
static uint32_t take_utf8(struct str *s)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	unsigned char first = (unsigned char)s->p[0];
	size_t len = first < 0x80   ? 1
		     : first < 0xc0 ? 0
		     : first < 0xe0 ? 2
		     : first < 0xf0 ? 3
		     : first < 0xf8 ? 4
				    : 0;
	uint32_t c;

	if (len == 0 || s->len < len) {
		*s = str_sub(*s, 1, s->len);
		return 0xfffd;
	}
	c = len == 1 ? first : first & (0x7fU >> len);
	for (size_t i = 1; i < len; i++) {
		if (((unsigned char)s->p[i] & 0xc0) != 0x80) {
			*s = str_sub(*s, 1, s->len);
			return 0xfffd;
		}
		c = c << 6 | ((unsigned char)s->p[i] & 0x3f);
	}
	*s = str_sub(*s, len, s->len);
	if (c < least[len] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return 0xfffd;
	return c;
}

/* XML 1.0, 2.2. */
static bool is_xml_char(uint32_t c)
{
	return c == '\t' || c == '\n' || c == '\r' || (c >= 0x20 && c < 0xfffe) || c > 0xffff;
}

/* --- names ----------------------------------------------------------------------------------- */

static void put_unit(struct buf *out, uint32_t unit)
{
	char text[8];

	snprintf(text, sizeof(text), "_.%04x", unit & 0xffff);
	buf_append(out, text, 6);
}

/* Of ASCII only: which other letters a name may hold is a long table, and escapes do as well. */
static bool is_name_char(uint32_t c, bool is_first)
{
	if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
		return true;
	return !is_first && ((c >= '0' && c <= '9') || c == '-' || c == '.');
}

void eureka_xml_name(struct buf *out, struct str key)
{
	bool is_first = true;

	while (key.len) {
		uint32_t c = take_utf8(&key);

		if (c == '_')
			buf_append(out, "__", 2);
		else if (c == '$')
			buf_append(out, "_-", 2);
		else if (is_name_char(c, is_first))
			buf_putc(out, (char)c);
		else if (c > 0xffff) {
			put_unit(out, 0xd800 + ((c - 0x10000) >> 10));
			put_unit(out, 0xdc00 + ((c - 0x10000) & 0x3ff));
		} else {
			put_unit(out, c);
		}
		is_first = false;
	}
}

/* "_.XXXX" at the front. */
static bool is_unit(struct str s, uint32_t *unit)
{
	uint32_t v = 0;

	if (s.len < 6 || s.p[0] != '_' || s.p[1] != '.')
		return false;
	for (size_t i = 2; i < 6; i++) {
		char c = s.p[i];

		if (!isxdigit((unsigned char)c))
			return false;
		v = v << 4 | (uint32_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
	}
	*unit = v;
	return true;
}

/* Returns how much of `name` was an escape, 0 when none begins here. */
static size_t decode_escape(struct str name, uint32_t *c)
{
	uint32_t high, low;

	if (name.len >= 2 && name.p[0] == '_' && (name.p[1] == '_' || name.p[1] == '-')) {
		*c = name.p[1] == '_' ? '_' : '$';
		return 2;
	}
	if (!is_unit(name, &high))
		return 0;
	*c = high;
	if (high < 0xd800 || high > 0xdfff)
		return high ? 6 : 0;
	if (high > 0xdbff || !is_unit(str_sub(name, 6, name.len), &low) || low < 0xdc00 ||
	    low > 0xdfff)
		return 0;
	*c = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
	return 12;
}

void eureka_xml_key(struct buf *out, struct str name)
{
	while (name.len) {
		uint32_t c;
		size_t len = decode_escape(name, &c);

		if (len)
			put_utf8(out, c);
		else
			buf_putc(out, name.p[0]);
		name = str_sub(name, len ? len : 1, name.len);
	}
}

void eureka_xml_text(struct buf *out, struct str text)
{
	while (text.len) {
		uint32_t c = take_utf8(&text);

		switch (c) {
		case '&':
			buf_addz(out, "&amp;");
			break;
		case '<':
			buf_addz(out, "&lt;");
			break;
		case '>':
			buf_addz(out, "&gt;");
			break;
		case '"':
			buf_addz(out, "&quot;");
			break;
		case '\'':
			buf_addz(out, "&apos;");
			break;
		case '\r': /* a reader would make a newline of it */
			buf_addz(out, "&#xd;");
			break;
		default:
			if (is_xml_char(c))
				put_utf8(out, c);
			else
				buf_addz(out, REPLACEMENT);
			break;
		}
	}
}

/* --- reading --------------------------------------------------------------------------------- */

struct frame {
	json_t *members; /* NULL: none yet */
	struct buf text;
	bool is_metadata, has_children;
};

struct parser {
	XML_Parser expat;
	const char *root;
	struct frame frames[EUREKA_XML_DEPTH + 1]; /* [0] is around the root */
	size_t depth, elements;
	struct err *err;
	bool has_failed;
};

__attribute__((format(printf, 2, 3))) static void fail(struct parser *p, const char *fmt, ...)
{
	va_list ap;

	if (p->has_failed)
		return;
	p->has_failed = true;
	va_start(ap, fmt);
	vsnprintf(p->err->text, sizeof(p->err->text), fmt, ap);
	va_end(ap);
	XML_StopParser(p->expat, XML_FALSE);
}

/* Takes the value. */
static void set_member(struct parser *p, struct frame *f, const char *name, json_t *value)
{
	if (!f->members)
		f->members = json_object();
	if (json_object_set_new(f->members, name, value) < 0)
		fail(p, "out of memory");
}

static json_t *text_value(const struct buf *text)
{
	return json_stringn(buf_str(text).p, buf_len(text));
}

static void add_attributes(struct parser *p, struct frame *f, const XML_Char **attributes)
{
	for (; attributes[0]; attributes += 2) {
		char name[64];

		if (strlen(attributes[0]) > sizeof(name) - 2)
			continue;
		snprintf(name, sizeof(name), "@%s", attributes[0]);
		set_member(p, f, name, json_string(attributes[1]));
	}
}

static void on_start(void *arg, const XML_Char *name, const XML_Char **attributes)
{
	struct parser *p = arg;
	struct frame *parent = &p->frames[p->depth], *f;

	if (p->has_failed)
		return;
	if (p->depth == 0 && strcmp(name, p->root) != 0) {
		fail(p, "the root element must be <%s>", p->root);
		return;
	}
	if (p->depth == EUREKA_XML_DEPTH || ++p->elements > EUREKA_XML_ELEMENTS) {
		fail(p, "too many elements, or too deep");
		return;
	}
	parent->has_children = true;
	f = &p->frames[++p->depth];
	*f = (struct frame) { .is_metadata = strcmp(name, "metadata") == 0 };
	buf_init(&f->text, 0);
	/* A pair of the metadata is text, whatever else is said of it. */
	if (!parent->is_metadata)
		add_attributes(p, f, attributes);
}

static json_t *frame_value(struct frame *f)
{
	if (!f->members)
		return f->has_children ? json_object() : text_value(&f->text);
	if (!f->has_children && buf_len(&f->text))
		json_object_set_new(f->members, "$", text_value(&f->text));
	return TAKE_PTR(f->members);
}

static void frame_fini(struct frame *f)
{
	json_decref(f->members);
	buf_fini(&f->text);
	*f = (struct frame) { 0 };
}

static void on_end(void *arg, const XML_Char *name)
{
	struct parser *p = arg;
	struct frame *f = &p->frames[p->depth], *parent;
	struct buf key;

	if (p->has_failed)
		return;
	parent = &p->frames[--p->depth];
	buf_init(&key, 0);
	if (parent->is_metadata)
		eureka_xml_key(&key, str_from(name));
	else
		buf_addz(&key, name);
	buf_putc(&key, '\0');
	if (buf_failed(&key) || buf_failed(&f->text))
		fail(p, "out of memory");
	else
		set_member(p, parent, buf_data(&key), frame_value(f));
	buf_fini(&key);
	frame_fini(f);
}

static void on_text(void *arg, const XML_Char *text, int len)
{
	struct parser *p = arg;

	if (!p->has_failed && p->depth)
		buf_append(&p->frames[p->depth].text, text, (size_t)len);
}

static void on_doctype(void *arg, const XML_Char *name, const XML_Char *system,
		       const XML_Char *public, int has_internal)
{
	(void)name;
	(void)system;
	(void)public;
	(void)has_internal;
	fail(arg, "a document type is not taken");
}

json_t *eureka_xml_read(struct str xml, const char *root, struct err *err)
{
	struct parser p = { .root = root, .err = err, .expat = XML_ParserCreate(NULL) };
	json_t *value = NULL;

	if (!p.expat || xml.len > INT32_MAX) {
		err_set(err, -ENOMEM, "out of memory");
		if (p.expat)
			XML_ParserFree(p.expat);
		return NULL;
	}
	XML_SetUserData(p.expat, &p);
	XML_SetElementHandler(p.expat, on_start, on_end);
	XML_SetCharacterDataHandler(p.expat, on_text);
	XML_SetStartDoctypeDeclHandler(p.expat, on_doctype);
	if (XML_Parse(p.expat, xml.p, (int)xml.len, XML_TRUE) == XML_STATUS_ERROR)
		fail(&p, "line %lu, column %lu: %s", XML_GetCurrentLineNumber(p.expat),
		     XML_GetCurrentColumnNumber(p.expat),
		     XML_ErrorString(XML_GetErrorCode(p.expat)));
	if (!p.has_failed)
		value = json_incref(json_object_get(p.frames[0].members, root));
	for (size_t i = 0; i <= EUREKA_XML_DEPTH; i++)
		frame_fini(&p.frames[i]);
	XML_ParserFree(p.expat);
	return value;
}
