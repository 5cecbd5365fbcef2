// SPDX-License-Identifier: Apache-2.0
// The one file that speaks to libprotobuf, whose interface is C++. No exception leaves it.
#include "gateway/transcode/proto.h"

#include <fcntl.h>
#include <jansson.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/dynamic_message.h>
#include <google/protobuf/unknown_field_set.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/type_resolver.h>
#include <google/protobuf/util/type_resolver_util.h>

namespace pb = google::protobuf;

namespace
{

const char kTypes[] = "type.googleapis.com";
const char kStatus[] = "google.rpc.Status";
// google/api/annotations.proto and google/api/http.proto.
const int kHttpExtension = 72295728;
enum HttpRuleField {
	kGet = 2,
	kPut,
	kPost,
	kDelete,
	kPatch,
	kBody,
	kCustom,
	kAdditional = 11,
	kResponseBody
};
enum CustomField { kKind = 1, kPath = 2 };

struct Json {
	json_t *value;
	explicit Json(json_t *v) : value(v)
	{
	}
	~Json()
	{
		json_decref(value);
	}
	Json(const Json &) = delete;
	Json &operator=(const Json &) = delete;
};

std::string text_of(struct str s)
{
	return s.len ? std::string(s.p, s.len) : std::string();
}

struct str str_view(const std::string &s)
{
	return str_of(s.data(), s.size());
}

std::string type_url(const pb::Descriptor *type)
{
	return std::string(kTypes) + "/" + type->full_name();
}

} // namespace

struct proto_set {
	pb::DescriptorPool pool;
	mutable pb::DynamicMessageFactory factory; // any thread may ask it
	std::unique_ptr<pb::util::TypeResolver> resolver;
	std::deque<std::string> strings; // stay where they are
	std::vector<struct proto_method> methods;
	std::vector<struct proto_rule> rules;

	struct str keep(std::string s)
	{
		strings.push_back(std::move(s));
		return str_view(strings.back());
	}
};

namespace
{

// --- loading ---------------------------------------------------------------------------------

// What the pool says of files that do not fit together; the first is enough.
class FirstError : public pb::DescriptorPool::ErrorCollector
{
      public:
	std::string text;
	void AddError(const std::string &file, const std::string &element, const pb::Message *,
		      ErrorLocation, const std::string &message) override
	{
		if (text.empty())
			text = file + ": " + element + ": " + message;
	}
};

void add_binding(struct proto_set *set, const struct proto_method *method, const std::string &bytes,
		 bool is_first);

void add_rule(struct proto_set *set, const struct proto_method *method,
	      const pb::UnknownFieldSet &fields, bool is_first)
{
	static const char *const verbs[] = { "GET", "PUT", "POST", "DELETE", "PATCH" };
	struct proto_rule rule = {};
	std::vector<const std::string *> additional;

	rule.method = method;
	for (int i = 0; i < fields.field_count(); i++) {
		const pb::UnknownField &f = fields.field(i);
		if (f.type() != pb::UnknownField::TYPE_LENGTH_DELIMITED)
			continue;
		const std::string &value = f.length_delimited();
		pb::UnknownFieldSet custom;
		switch (f.number()) {
		case kGet:
		case kPut:
		case kPost:
		case kDelete:
		case kPatch:
			rule.verb = str_from(verbs[f.number() - kGet]);
			rule.path = set->keep(value);
			break;
		case kBody:
			rule.body = set->keep(value);
			break;
		case kResponseBody:
			rule.response_body = set->keep(value);
			break;
		case kCustom:
			if (!custom.ParseFromString(value))
				break;
			for (int k = 0; k < custom.field_count(); k++) {
				const pb::UnknownField &c = custom.field(k);
				if (c.type() != pb::UnknownField::TYPE_LENGTH_DELIMITED)
					continue;
				if (c.number() == kKind)
					rule.verb = set->keep(c.length_delimited());
				else if (c.number() == kPath)
					rule.path = set->keep(c.length_delimited());
			}
			break;
		case kAdditional:
			additional.push_back(&value);
			break;
		}
	}
	if (rule.verb.p && rule.path.p)
		set->rules.push_back(rule);
	// Bindings of bindings are not allowed by http.proto.
	for (size_t i = 0; is_first && i < additional.size(); i++)
		add_binding(set, method, *additional[i], false);
}

void add_binding(struct proto_set *set, const struct proto_method *method, const std::string &bytes,
		 bool is_first)
{
	pb::UnknownFieldSet fields;

	if (fields.ParseFromString(bytes))
		add_rule(set, method, fields, is_first);
}

// The annotation is an extension that nobody here has code for: it is among the unknown fields.
void add_annotation(struct proto_set *set, const struct proto_method *method)
{
	const auto *descriptor = static_cast<const pb::MethodDescriptor *>(method->descriptor);
	const pb::MethodOptions &options = descriptor->options();
	const pb::UnknownFieldSet &unknown = options.GetReflection()->GetUnknownFields(options);

	for (int i = 0; i < unknown.field_count(); i++) {
		const pb::UnknownField &f = unknown.field(i);
		if (f.number() == kHttpExtension &&
		    f.type() == pb::UnknownField::TYPE_LENGTH_DELIMITED)
			add_binding(set, method, f.length_delimited(), true);
	}
}

bool add_files(struct proto_set *set, const pb::FileDescriptorSet &files, struct err *err)
{
	for (const pb::FileDescriptorProto &file : files.file()) {
		FirstError errors;
		const pb::FileDescriptor *built = set->pool.BuildFileCollectingErrors(file,
										      &errors);
		if (!built) {
			err_set(err, 0, "%s%s", errors.text.c_str(),
				errors.text.find("Import") != std::string::npos
					? "; was it made with --include_imports?"
					: "");
			return false;
		}
		for (int s = 0; s < built->service_count(); s++) {
			const pb::ServiceDescriptor *service = built->service(s);
			for (int m = 0; m < service->method_count(); m++) {
				const pb::MethodDescriptor *method = service->method(m);
				struct proto_method entry = {};
				entry.path = set->keep("/" + service->full_name() + "/" +
						       method->name());
				entry.client_streams = method->client_streaming();
				entry.server_streams = method->server_streaming();
				entry.descriptor = method;
				entry.set = set;
				set->methods.push_back(entry);
			}
		}
	}
	for (const struct proto_method &method : set->methods)
		add_annotation(set, &method);
	return true;
}

// --- fields ----------------------------------------------------------------------------------

const pb::Descriptor *input_of(const struct proto_method *m)
{
	return static_cast<const pb::MethodDescriptor *>(m->descriptor)->input_type();
}

const pb::Descriptor *output_of(const struct proto_method *m)
{
	return static_cast<const pb::MethodDescriptor *>(m->descriptor)->output_type();
}

// By its name in the file or in JSON.
const pb::FieldDescriptor *find_field(const pb::Descriptor *type, const std::string &name)
{
	const pb::FieldDescriptor *f = type->FindFieldByName(name);

	for (int i = 0; !f && i < type->field_count(); i++) {
		if (type->field(i)->json_name() == name)
			f = type->field(i);
	}
	return f;
}

// Messages whose JSON is a string or a number (protobuf's "well-known types").
bool is_scalar_message(const pb::Descriptor *type)
{
	static const char *const names[] = { "Timestamp",   "Duration",    "FieldMask",
					     "DoubleValue", "FloatValue",  "Int64Value",
					     "UInt64Value", "Int32Value",  "UInt32Value",
					     "BoolValue",   "StringValue", "BytesValue" };

	for (const char *name : names) {
		if (type->full_name() == std::string("google.protobuf.") + name)
			return true;
	}
	return false;
}

// The fields on the way to "a.b.c". False with a sentence.
bool resolve(const pb::Descriptor *type, struct str path,
	     std::vector<const pb::FieldDescriptor *> *way, struct err *err)
{
	struct str rest = path, name;

	while (str_split(&rest, '.', &name)) {
		const pb::FieldDescriptor *f = type ? find_field(type, text_of(name)) : nullptr;
		if (!f) {
			err_set(err, 0, "there is no field \"%.*s\"",
				(int)std::min(path.len, (size_t)80), path.p);
			return false;
		}
		way->push_back(f);
		type = f->is_map() || f->is_repeated() ? nullptr : f->message_type();
	}
	const pb::FieldDescriptor *last = way->back();
	if (last->is_map() || (last->message_type() && !is_scalar_message(last->message_type()))) {
		err_set(err, 0, "field \"%.*s\" holds a message, which needs a body",
			(int)std::min(path.len, (size_t)80), path.p);
		return false;
	}
	return true;
}

// Puts the text where the fields lead to. Numbers, too, may be strings in protobuf's JSON.
bool put_value(json_t *root, const std::vector<const pb::FieldDescriptor *> &way, struct str value)
{
	json_t *at = root;

	for (size_t i = 0; i + 1 < way.size(); i++) {
		const char *key = way[i]->name().c_str();
		json_t *next = json_object_get(at, key);
		if (!next && json_object_set_new(at, key, json_object()) < 0)
			return false;
		at = json_object_get(at, key);
	}
	const pb::FieldDescriptor *f = way.back();
	json_t *text = json_stringn(value.p ? value.p : "", value.len);
	if (!f->is_repeated())
		return json_object_set_new(at, f->name().c_str(), text) == 0;
	json_t *list = json_object_get(at, f->name().c_str());
	if (!list) {
		if (json_object_set_new(at, f->name().c_str(), json_array()) < 0) {
			json_decref(text);
			return false;
		}
		list = json_object_get(at, f->name().c_str());
	}
	return json_array_append_new(list, text) == 0;
}

// --- conversions -----------------------------------------------------------------------------

// libprotobuf's sentence on one line of printable characters, for a client.
void explain(struct err *err, const std::string &message)
{
	std::string line;

	for (char c : message) {
		if (line.size() >= 200)
			break;
		line.push_back(c >= 0x20 && c < 0x7f ? c : ' ');
	}
	err_set(err, 0, "%s", line.c_str());
}

int parse(const struct proto_set *set, const pb::Descriptor *type, const std::string &json,
	  std::string *out, struct err *err)
{
	auto status = pb::util::JsonToBinaryString(set->resolver.get(), type_url(type), json, out,
						   pb::util::JsonParseOptions());

	if (status.ok())
		return 0;
	explain(err, std::string(status.message()));
	return -EINVAL;
}

int print(const struct proto_set *set, const pb::Descriptor *type, const std::string &message,
	  std::string *out, struct err *err)
{
	// The converter takes a cut message for a shorter one; the parser does not.
	std::unique_ptr<pb::Message> whole(set->factory.GetPrototype(type)->New());
	if (!whole->ParseFromString(message)) {
		err_set(err, 0, "not a %s", type->full_name().c_str());
		return -EINVAL;
	}
	auto status = pb::util::BinaryToJsonString(set->resolver.get(), type_url(type), message,
						   out, pb::util::JsonPrintOptions());

	if (status.ok())
		return 0;
	explain(err, std::string(status.message()));
	return -EINVAL;
}

// The body as the value of one field. Whether it is one value is checked first: it could say more
// than that otherwise.
int wrap(struct str json, const std::string &field, std::string *out, struct err *err)
{
	json_error_t problem;
	Json value(json_loadb(json.p, json.len,
			      JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL | JSON_REJECT_DUPLICATES,
			      &problem));

	if (!value.value) {
		explain(err,
			std::string(problem.text) + " (line " + std::to_string(problem.line) + ")");
		return -EINVAL;
	}
	*out = "{\"" + field + "\":" + text_of(json) + "}";
	return 0;
}

int append(struct buf *out, const std::string &bytes)
{
	buf_append(out, bytes.data(), bytes.size());
	return buf_failed(out) ? -ENOMEM : 0;
}

int convert_body(const struct proto_rule *rule, struct str json, struct buf *out, struct err *err)
{
	std::string text, bytes;
	int rc = 0;

	if (str_eqz(rule->body, "*"))
		text = text_of(json);
	else
		rc = wrap(json, text_of(rule->body), &text, err);
	if (rc == 0)
		rc = parse(rule->method->set, input_of(rule->method), text, &bytes, err);
	return rc == 0 ? append(out, bytes) : rc;
}

int convert_values(const struct proto_rule *rule, const struct proto_value *values, size_t count,
		   struct buf *out, struct err *err)
{
	const pb::Descriptor *type = input_of(rule->method);
	Json root(json_object());

	for (size_t i = 0; i < count; i++) {
		std::vector<const pb::FieldDescriptor *> way;
		if (!resolve(type, values[i].field, &way, err))
			return -EINVAL;
		if (!root.value || !put_value(root.value, way, values[i].value))
			return -ENOMEM;
	}
	std::unique_ptr<char, void (*)(void *)> text(json_dumps(root.value, JSON_COMPACT), free);
	std::string bytes;
	if (!text)
		return -ENOMEM;
	int rc = parse(rule->method->set, type, text.get(), &bytes, err);
	return rc == 0 ? append(out, bytes) : rc;
}

// A member of a JSON object as text.
int select(const std::string &json, const pb::Descriptor *type, const std::string &field,
	   std::string *out)
{
	Json root(json_loadb(json.data(), json.size(), 0, nullptr));
	json_t *member = json_object_get(root.value, find_field(type, field)->json_name().c_str());

	if (!member) {
		const pb::FieldDescriptor *f = find_field(type, field);
		*out = f->is_map() ? "{}" : f->is_repeated() ? "[]" : "null";
		return 0;
	}
	std::unique_ptr<char, void (*)(void *)> text(
		json_dumps(member, JSON_COMPACT | JSON_ENCODE_ANY), free);
	if (!text)
		return -ENOMEM;
	*out = text.get();
	return 0;
}

bool read_file(const char *path, std::string *out, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char piece[16384];
	ssize_t n = -1;

	if (fd >= 0) {
		while ((n = read(fd, piece, sizeof(piece))) > 0)
			out->append(piece, (size_t)n);
	}
	if (n < 0)
		err_set(err, 0, "%s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return n == 0;
}

} // namespace

// --- for C -----------------------------------------------------------------------------------

struct proto_set *proto_set_load(const char *file, struct err *err)
try {
	std::unique_ptr<struct proto_set> set(new struct proto_set);
	pb::FileDescriptorSet files;
	std::string bytes;
	struct err why;

	if (!read_file(file, &bytes, err))
		return nullptr;
	if (!files.ParseFromString(bytes) || files.file_size() == 0) {
		err_set(err, 0,
			"%s: is no descriptor set (protoc --include_imports "
			"--descriptor_set_out=FILE)",
			file);
		return nullptr;
	}
	if (!add_files(set.get(), files, &why)) {
		err_set(err, 0, "%s: %.400s", file, why.text);
		return nullptr;
	}
	if (set->methods.empty()) {
		err_set(err, 0, "%s: has no service", file);
		return nullptr;
	}
	set->resolver.reset(pb::util::NewTypeResolverForDescriptorPool(kTypes, &set->pool));
	return set.release();
} catch (const std::exception &e) {
	err_set(err, 0, "%s: %s", file, e.what());
	return nullptr;
}

void proto_set_free(struct proto_set *set)
{
	delete set;
}

const struct proto_method *proto_set_methods(const struct proto_set *set, size_t *count)
{
	*count = set->methods.size();
	return set->methods.data();
}

const struct proto_rule *proto_set_rules(const struct proto_set *set, size_t *count)
{
	*count = set->rules.size();
	return set->rules.data();
}

int proto_rule_check(const struct proto_rule *rule, struct err *err)
try {
	const pb::Descriptor *in = input_of(rule->method), *out = output_of(rule->method);

	if (rule->body.len && !str_eqz(rule->body, "*") &&
	    !in->FindFieldByName(text_of(rule->body)))
		return err_set(err, -EINVAL, "body \"%.*s\" is no field of %s", STR_ARG(rule->body),
			       in->full_name().c_str());
	if (rule->response_body.len && !out->FindFieldByName(text_of(rule->response_body)))
		return err_set(err, -EINVAL, "response_body \"%.*s\" is no field of %s",
			       STR_ARG(rule->response_body), out->full_name().c_str());
	return 0;
} catch (const std::exception &e) {
	return err_set(err, -EINVAL, "%s", e.what());
}

int proto_field_check(const struct proto_method *method, struct str field, struct err *err)
try {
	std::vector<const pb::FieldDescriptor *> way;

	if (!resolve(input_of(method), field, &way, err))
		return -EINVAL;
	if (way.back()->is_repeated())
		return err_set(err, -EINVAL, "field \"%.*s\" is a list, which a path cannot hold",
			       STR_ARG(field));
	return 0;
} catch (const std::exception &e) {
	return err_set(err, -EINVAL, "%s", e.what());
}

int proto_request(const struct proto_rule *rule, struct str json, const struct proto_value *values,
		  size_t count, struct buf *out, struct err *err)
try {
	int rc = 0;

	if (rule->body.len && json.len)
		rc = convert_body(rule, json, out, err);
	/* One message behind another is both merged, later fields win (protobuf's "Encoding"). */
	if (rc == 0 && count)
		rc = convert_values(rule, values, count, out, err);
	return rc;
} catch (const std::exception &) {
	return err_set(err, -ENOMEM, "out of memory");
}

int proto_response(const struct proto_rule *rule, struct str message, struct buf *out,
		   struct err *err)
try {
	const pb::Descriptor *type = output_of(rule->method);
	std::string json, part;
	int rc = print(rule->method->set, type, text_of(message), &json, err);

	if (rc < 0 || rule->response_body.len == 0)
		return rc < 0 ? rc : append(out, json);
	rc = select(json, type, text_of(rule->response_body), &part);
	return rc < 0 ? rc : append(out, part);
} catch (const std::exception &) {
	return err_set(err, -ENOMEM, "out of memory");
}

int proto_status_details(const struct proto_set *set, struct str message, struct buf *out)
try {
	const pb::Descriptor *type = set->pool.FindMessageTypeByName(kStatus);
	std::string json, details;
	struct err err;

	if (!type || !find_field(type, "details"))
		return -ENOENT;
	if (print(set, type, text_of(message), &json, &err) < 0)
		return -ENOENT;
	if (select(json, type, "details", &details) < 0)
		return -ENOMEM;
	if (details == "[]")
		return -ENOENT;
	return append(out, details);
} catch (const std::exception &) {
	return -ENOMEM;
}
