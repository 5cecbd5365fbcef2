/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/conf/conf.h"

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "gateway/identity/jwks.h"
#include "gateway/snapshot.h"
#include "lib/cleanup.h"
#include "tests/unit/unit.h"

static struct gw_conf conf;
static struct arena arena;
static char said[16384];

static void keep_errors(struct conf_errors *errors)
{
	struct buf b;

	buf_init(&b, sizeof(said) - 1);
	conf_errors_write(errors, "f", &b);
	snprintf(said, sizeof(said), "%.*s", (int)MIN(buf_len(&b), sizeof(said) - 1),
		 buf_str(&b).p);
	buf_fini(&b);
	conf_errors_fini(errors);
}

/* Single quotes in the text stand for double ones. */
static const char *quoted(const char *text)
{
	static char out[65536];
	size_t i;

	for (i = 0; text[i]; i++)
		out[i] = text[i] == '\'' ? '"' : text[i];
	out[i] = '\0';
	return out;
}

static int load(const char *text)
{
	struct conf_errors errors = { 0 };
	int rc;

	arena_fini(&arena);
	arena_init(&arena, 16384, 0);
	rc = conf_load_text(&conf, &gw_conf_object, str_from(quoted(text)), &arena, &errors);
	keep_errors(&errors);
	return rc;
}

#define LISTEN   "'domain':'rider','listeners':[{'bind':'127.0.0.1:8080'}]"
#define SERVICES "'services':{'feed':{'endpoints':[{'address':'127.0.0.1:1'}]}}"
#define AUTH \
	"'auth':{'rider':{'type':'jwt','issuer':'i','algorithms':['RS256'],'jwks':{'file':'k'}}}"
#define LIMITS "'rate_limits':{'per-ip':{'key':'ip','limit':10,'window_s':60}}"
#define BASE   "{" LISTEN "," SERVICES "," AUTH "," LIMITS ",'routes':["
#define ROUTE  "{'name':'a','match':{'path':'/a'},'service':'feed'}"

static void fills_defaults(void **state)
{
	if (load(BASE ROUTE "]}") != 0)
		fail_msg("%s", said);
	assert_true(conf.instance.len > 0);
	assert_int_equal(conf.services[0].connect_timeout_ms, 250);
	assert_int_equal(conf.services[0].endpoints[0].weight, 1);
	assert_int_equal(conf.services[0].balance, GW_P2C);
	assert_int_equal(conf.defaults.response.remove_count, 3);
	assert_int_equal(conf.auth[0].forward_count, 1);
	assert_true(str_eqz(conf.auth[0].user_claim, "sub"));
	assert_true(str_eqz(conf.auth[0].realm, "rider"));
	assert_int_equal(conf.auth[0].algorithms, JWT_ALG_BIT(JWT_RS256));
	assert_int_equal(conf.routes[0].service_to - conf.services, 0);
	assert_int_equal(conf.rate_limit_keys, 1048576);
	assert_int_equal(conf.path_allow, 0);
	assert_int_equal(conf.admin.bind.sa.sa_family, AF_INET);
	assert_null(conf.access_log.path.p);
}

static void tells_each_mistake_with_its_path(void **state)
{
	static const struct {
		const char *text, *want;
	} cases[] = {
		{ "{'domain':'rider','listeners':[],'routes':[" ROUTE "]," SERVICES "}",
		  "f: listeners: must not be empty\n" },
		{ "{" LISTEN ",'routes':[" ROUTE "]}",
		  "f: routes[0].service: there is no service \"feed\"\n" },
		{ BASE "{'name':'a','match':{'path':'/a'},'service':'fed'}]}",
		  "f: routes[0].service: there is no service \"fed\"; did you mean \"feed\"?\n" },
		{ BASE "{'name':'a','match':{'path':'/a'},'service':'feed','auth':'riders',"
		       "'limits':['per-ip','per-user']}]}",
		  "f: routes[0].auth: there is no auth \"riders\"; did you mean \"rider\"?\n"
		  "f: routes[0].limits[1]: there is no rate limit \"per-user\"\n" },
		{ BASE ROUTE "],'defaults':{'limits':['perip']}}",
		  "f: defaults.limits[0]: there is no rate limit \"perip\"; did you mean "
		  "\"per-ip\"?\n" },
		{ BASE ROUTE "," ROUTE "]}",
		  "f: routes[1].name: \"a\" is the name of routes[0] already\n"
		  "f: routes[1].match: is the same as that of routes[0], so this route is never "
		  "reached\n" },
		{ BASE "{'name':'a','match':{'path':'/{x}'},'service':'feed'},"
		       "{'name':'b','match':{'path':'/{y}'},'service':'feed'}]}",
		  "f: routes[1].match: is the same as that of routes[0], so this route is never "
		  "reached\n" },
		{ BASE "{'name':'a','match':{'path':'api'},'service':'feed'}]}",
		  "f: routes[0].match.path: must begin with \"/\", not \"api\"\n" },
		{ BASE "{'name':'a','service':'feed'}]}", "f: routes[0].match: is required\n" },
		{ BASE "{'name':'a','match':{'path':'/a','hosts':['a:80']},'service':'feed'}]}",
		  "f: routes[0].match.hosts[0]: must be a host name without a port, not "
		  "\"a:80\"\n" },
		{ BASE "{'name':'a','match':{'path':'/a','methods':['get']},'service':'feed'}]}",
		  "f: routes[0].match.methods[0]: must be written in capitals, as methods are, not "
		  "\"get\"\n" },
		{ BASE "{'name':'a','match':{'path':'/a'}}]}",
		  "f: routes[0]: must have one of \"service\", \"split\", \"respond\" and "
		  "\"redirect\"\n" },
		{ BASE "{'name':'a','match':{'path':'/a'},'service':'feed','respond':{}}]}",
		  "f: routes[0]: must have one of \"service\", \"split\", \"respond\" and "
		  "\"redirect\", not several\n" },
		{ BASE
		  "{'name':'a','match':{'path':'/a'},'service':'feed','rewrite_prefix':'/b'}]}",
		  "f: routes[0].rewrite_prefix: needs a path that is a prefix (\"/x/*\")\n" },
		{ BASE "{'name':'a','match':{'path':'/a'},'service':'feed','require':{'scope':"
		       "['pay']}}]}",
		  "f: routes[0].require: needs \"auth\"\n" },
		{ BASE
		  "{'name':'a','match':{'path':'/a'},'service':'feed','auth':'rider','require':"
		  "{'scope':[1]}}]}",
		  "f: routes[0].require.scope: must be a string, not an integer\n" },
		{ BASE "{'name':'a','match':{'path':'/a'},'service':'feed','grpc':true}]}",
		  "f: routes[0].grpc: needs services of \"protocol\": \"grpc\" with a "
		  "\"descriptor_set\"\n" },
		{ BASE "{'name':'a','match':{'path':'/a'},'split':[{'service':'x','weight':1},"
		       "{'service':'feed','weight':0}]}]}",
		  "f: routes[0].split[0].service: there is no service \"x\"\n" },
		{ BASE
		  "{'name':'a','match':{'path':'/a'},'split':[{'service':'feed','weight':0}]}]}",
		  "f: routes[0].split: must have a weight above 0\n" },
		{ BASE "{'name':'a','match':{'path':'/a'},'service':'feed','version':{'name':'v1',"
		       "'deprecated':'soon','enforce_sunset':true}}]}",
		  "f: routes[0].version.deprecated: must be a date and time such as "
		  "\"2026-06-01T00:00:00Z\", not \"soon\"\n"
		  "f: routes[0].version.enforce_sunset: needs a \"sunset\"\n" },
		{ BASE
		  "{'name':'a','match':{'path':'/a'},'service':'feed','request':{'set':{'Host':"
		  "'x','X-A':'${claim.sub','X-User-Id':'1'},'remove':['*']}}]}",
		  "f: routes[0].request.set.Host: the name must not be one of the headers that "
		  "frame messages\n"
		  "f: routes[0].request.set.X-A: holds a { that is not closed, not "
		  "\"${claim.sub\"\n"
		  "f: routes[0].request.remove[0]: must be a header name before the *, not \"*\"\n"
		  "f: routes[0].request.set.X-User-Id: is an identity header of auth.rider\n" },
		{ BASE
		  "{'name':'a','match':{'path':'/a/{id}'},'service':'feed','rewrite_path':'/b/{x}',"
		  "'request':{'set':{'X-A':'${claim.sub}${path.id}'}},"
		  "'response':{'add':{'X-B':'${path.x}'}}}]}",
		  "f: routes[0].request.set.X-A: has ${claim.sub}, but the route no \"auth\"\n"
		  "f: routes[0].response.add.X-B: has ${path.x}, but the path of \"match\" has no "
		  "{x}\n"
		  "f: routes[0].rewrite_path: has ${path.x}, but the path of \"match\" has no "
		  "{x}\n" },
		{ BASE "{'name':'a','match':{'path':'/a'},'service':'feed','rewrite_path':'/b/*',"
		       "'rewrite_prefix':'/c'},"
		       "{'name':'b','match':{'path':'/b'},'respond':{'status':204,'body':'x',"
		       "'headers':{'X-A':'${nope'}},'rewrite_path':'/x'},"
		       "{'name':'c','match':{'path':'/c'},'redirect':{'location':'/x','port':1}},"
		       "{'name':'d','match':{'path':'/d'},'redirect':{}},"
		       "{'name':'e','match':{'path':'/e'},'redirect':{'path':'/x','prefix':'/y'}},"
		       "{'name':'g','match':{'path':'/g'},'redirect':{'host':'a.example/x'}},"
		       "{'name':'h','match':{'path':'/h'},'redirect':{'path':'/x/{id}'}},"
		       "{'name':'i','match':{'path':'/i'},'redirect':{'location':'//x'}}]}",
		  "f: routes[0].rewrite_path: cannot be together with \"rewrite_prefix\"\n"
		  "f: routes[0].rewrite_prefix: needs a path that is a prefix (\"/x/*\")\n"
		  "f: routes[0].rewrite_path: may end in \"/*\" only where the path is a prefix "
		  "(\"/x/*\")\n"
		  "f: routes[1].respond.headers.X-A: holds a { that is not closed, not \"${nope\"\n"
		  "f: routes[1].respond.body: must be empty with status 204\n"
		  "f: routes[1].rewrite_path: needs a \"service\" or \"split\"\n"
		  "f: routes[2].redirect: must have a \"location\", or some of \"scheme\", "
		  "\"host\", \"port\", \"path\" and \"prefix\", not both\n"
		  "f: routes[3].redirect: must have a \"location\", or some of \"scheme\", "
		  "\"host\", \"port\", \"path\" and \"prefix\"\n"
		  "f: routes[4].redirect.prefix: cannot be together with \"path\"\n"
		  "f: routes[4].redirect.prefix: needs a path that is a prefix (\"/x/*\")\n"
		  "f: routes[5].redirect.host: must be a host name without a port, not "
		  "\"a.example/x\"\n"
		  "f: routes[6].redirect: has ${path.id}, but the path of \"match\" has no {id}\n"
		  "f: routes[7].redirect.location: must not begin with \"//\": say which scheme, "
		  "not \"//x\"\n" },
		{ BASE "{'name':'a','match':{'path':'/a'},'service':'feed','cors':{'origins':"
		       "['*'],'credentials':true}},"
		       "{'name':'b','match':{'path':'/b'},'service':'feed','cors':{'origins':"
		       "['*','https://a.example/'],'methods':['*'],'headers':['*','X-A']}},"
		       "{'name':'c','match':{'path':'/c'},'service':'feed','cors':{'origins':[],"
		       "'credentials':true,'exposed_headers':['*']}},"
		       "{'name':'d','match':{'path':'/d'},'service':'feed','cors':{}},"
		       "{'name':'e','match':{'path':'/e'},'service':'feed','cors':null}]}",
		  "f: routes[0].cors.credentials: cannot be with \"origins\": [\"*\"]: any page "
		  "could act for whoever opens it; name the origins\n"
		  "f: routes[1].cors.origins[1]: must be scheme, host and perhaps port, in lower "
		  "case, without a path, not \"https://a.example/\"\n"
		  "f: routes[1].cors.methods[0]: must be a method; without \"methods\" it is those "
		  "of the route, not \"*\"\n"
		  "f: routes[1].cors.origins: \"*\" must stand alone\n"
		  "f: routes[1].cors.headers: \"*\" must stand alone\n"
		  "f: routes[2].cors.exposed_headers: \"*\" means nothing to browsers with "
		  "\"credentials\": name the headers\n"
		  "f: routes[3].cors.origins: is required\n" },
		{ BASE "{'name':'a','match':{'path':'/a'},'redirect':{'status':304,'location':"
		       "'/b'}}]}",
		  "f: routes[0].redirect.status: must be 301, 302, 303, 307 or 308, not 304\n" },
		{ "{" LISTEN
		  ",'services':{'a':{},'b':{'discover':'x'},'c':{'endpoints':[{'address':"
		  "'127.0.0.1'}],'health':{'type':'grpc','path':'/up','statuses':[99]},'balance':"
		  "'ring_hash','retry_on':['500-','404']},'d':{'discover':'x','balance':"
		  "'RetryRule','hash_on':'colour','health':{'service':'x'},'ejection':{'max_ms':1}}"
		  "},"
		  "'routes':[]}",
		  "f: services.a: must have \"discover\" or \"endpoints\"\n"
		  "f: services.c.endpoints[0].address: must have a port\n"
		  "f: services.c.retry_on: must hold statuses from 100 to 599, such as 404 or "
		  "\"200-299\", only\n"
		  "f: services.c.health.statuses: must hold statuses from 100 to 599, such as 404 "
		  "or "
		  "\"200-299\", only\n"
		  "f: services.c.balance: \"ring_hash\" needs a \"hash_on\"\n"
		  "f: services.c.health.type: \"grpc\" needs \"protocol\": \"grpc\" or \"h2\"\n"
		  "f: services.c.health.path: is for \"type\": \"http\" only\n"
		  "f: services.d.hash_on: must be \"user\", \"ip\", \"endpoint\", \"header:NAME\" "
		  "or "
		  "\"cookie:NAME\"\n"
		  "f: services.d.hash_on: is for \"balance\": \"ring_hash\" only\n"
		  "f: services.d.ejection.max_ms: must not be less than \"base_ms\"\n"
		  "f: services.d.health.service: is for \"type\": \"grpc\" only\n"
		  "f: routes: must not be empty\n"
		  "f: services.b.discover: needs a \"registry\"\n"
		  "f: services.d.discover: needs a \"registry\"\n" },
		{ "{'domain':'d','listeners':[{'bind':'*:1','redirect_to_https':true,'tls':{"
		  "'certificates':[{'certificate':'c','key':'k'}],'alpn':['h3'],'client_auth':"
		  "'require','hosts':{'a.b':{'client_auth':'request'},'c.d':{}}}},"
		  "{'bind':'*:1'}],'routes':[{'name':'a','match':{'path':'/'},'respond':{}}]}",
		  "f: listeners[0].tls.alpn[0]: must be \"h2\" or \"http/1.1\", not \"h3\"\n"
		  "f: listeners[0].tls.client_auth: needs a \"client_ca\"\n"
		  "f: listeners[0].tls.hosts[\"a.b\"].client_auth: needs a \"client_ca\"\n"
		  "f: listeners[0].tls.hosts[\"c.d\"].client_auth: needs a \"client_ca\"\n"
		  "f: listeners[0].redirect_to_https: is for listeners without \"tls\"\n"
		  "f: listeners[1].bind: is that of listeners[0] already\n" },
		{ "{" LISTEN
		  ",'rate_limit_store':{'type':'redis','url':'redis://x'},'rate_limits':{"
		  "'a b':{'key':'ip','limit':1,'window_s':1},'c':{'key':'ipp','limit':0,"
		  "'window_s':1},'d':{'key':['user','x'],'limit':1,'window_s':1},'e':{'key':'ip',"
		  "'limit':5000000,'window_s':1}},'routes':[{'name':'a','match':{'path':'/'},"
		  "'respond':{}}]}",
		  "f: rate_limit_store.url: x: needs an IP address and a port, names are not "
		  "looked "
		  "up here\n"
		  "f: rate_limits[\"a b\"]: the name must have letters, digits, \"_\", \".\" and "
		  "\"-\" only\n"
		  "f: rate_limits.c.key: must be \"user\", \"ip\", \"endpoint\", \"global\", "
		  "\"api_key\", \"header:NAME\", \"claim:NAME\", or several joined by "
		  "\"+\"\n"
		  "f: rate_limits.c.limit: must be 1..1000000000, not 0\n"
		  "f: rate_limits.d.key: must be \"user\", \"ip\", \"endpoint\", \"global\", "
		  "\"api_key\", \"header:NAME\", \"claim:NAME\", or several joined by "
		  "\"+\"\n"
		  "f: rate_limits.e: must not exceed 1,000,000 requests per second\n" },
		{ "{" LISTEN "," SERVICES ",'auth':{'r':{'type':'jwt','issuer':'i','algorithms':["
		  "'none','RS255'],'jwks':{'url':'https://x'},'forward':{'a':'X-A','b':'x-a'}}},"
		  "'routes':[" ROUTE "]}",
		  "f: auth.r.algorithms: knows no algorithm \"none\"\n"
		  "f: auth.r.algorithms: knows no algorithm \"RS255\"; did you mean \"RS256\"?\n"
		  "f: auth.r.forward.b: is sent as x-a already, for the claim \"a\"\n" },
		{ "{" LISTEN "," SERVICES ",'auth':{"
		  "'a':{'type':'jwt'},"
		  "'b':{'type':'jwt','issuer':'i','algorithms':['HS256'],'jwks':{'file':'x','url':"
		  "'http://x/'},'token':{'query':'t'},'allow':['cn:x']},"
		  "'c':{'type':'jwt','issuer':'i','algorithms':['ES256'],'jwks':{'url':'ftp://x'},"
		  "'token':[{'header':'a b'},{'cookie':'x','header':'y'},{}]},"
		  "'d':{'type':'api_key','issuer':'i','token':[]},"
		  "'e':{'type':'mtls','allow':['alice','dns:','cn:***'],'token':{'header':'x'}},"
		  "'f':{'type':'jwt','issuer':'i','algorithms':['ES256'],'jwks':{}}},"
		  "'routes':[" ROUTE "]}",
		  "f: auth.a.issuer: is required\n"
		  "f: auth.a.algorithms: is required\n"
		  "f: auth.a.jwks: is required\n"
		  "f: auth.b.allow: is not for \"type\": \"jwt\"\n"
		  "f: auth.b.jwks: must have a \"file\" or a \"url\", not both\n"
		  "f: auth.b.jwks.url: must begin with \"https://\": over http anybody on the way "
		  "can put his own key in; \"allow_http\" permits it all the same\n"
		  "f: auth.b.algorithms: HS256, HS384 and HS512 need \"jwks.file\": whoever can "
		  "read a secret at a URL can sign\n"
		  "f: auth.b.token: must be no query parameter: such tokens end up in logs, "
		  "histories and Referer headers (RFC 6750 5.3)\n"
		  "f: auth.c.jwks.url: must begin with \"https://\" or \"http://\", not "
		  "\"ftp://x\"\n"
		  "f: auth.c.token.header: must be a name without white space\n"
		  "f: auth.c.token: must be {\"header\": NAME}, {\"cookie\": NAME} or "
		  "{\"query\": NAME}, or a list of such\n"
		  "f: auth.c.token: must be {\"header\": NAME}, {\"cookie\": NAME} or "
		  "{\"query\": NAME}, or a list of such\n"
		  "f: auth.d.token: must hold 1 to 4 places\n"
		  "f: auth.d.issuer: is not for \"type\": \"api_key\"\n"
		  "f: auth.d.keys_file: is required\n"
		  "f: auth.e.allow[0]: must be \"uri:…\", \"dns:…\", \"email:…\" or \"cn:…\", not "
		  "\"alice\"\n"
		  "f: auth.e.allow[1]: must be \"uri:…\", \"dns:…\", \"email:…\" or \"cn:…\", not "
		  "\"dns:\"\n"
		  "f: auth.e.allow[2]: may have at most two \"*\", not \"cn:***\"\n"
		  "f: auth.e.token: is not for \"type\": \"mtls\"\n"
		  "f: auth.f.jwks: must have a \"file\" or a \"url\"\n"
		  "f: auth.e.type: warning: \"mtls\" lets nobody in: no listener asks for "
		  "certificates, see \"tls.client_auth\"\n" },
		{ BASE "{'name':'a','match':{'path':'/a'},'service':'feed','auth':['rider','rider',"
		       "'ridr'],'auth_optional':true,'require':{'a':{},'b':{'equals':['x']},'c':{"
		       "'one_of':'x'},'d':{'is':1},'e':{'equals':{}},'f':{'contains':[]}}},"
		       "{'name':'b','match':{'path':'/b'},'service':'feed','auth_optional':true},"
		       "{'name':'c','match':{'path':'/c'},'service':'feed','auth':[]}]}",
		  "f: routes[0].auth: names \"rider\" twice\n"
		  "f: routes[0].require.a: must not be empty\n"
		  "f: routes[0].require.b.equals: must be one value\n"
		  "f: routes[0].require.c.one_of: must be a list of values\n"
		  "f: routes[0].require.d.is: is no condition; there are \"equals\", \"one_of\", "
		  "\"contains\" and \"contains_one_of\"\n"
		  "f: routes[0].require.e.equals: must be a string, a number or a boolean\n"
		  "f: routes[0].require.f.contains: must not be empty\n"
		  "f: routes[0].auth_optional: does not go with \"require\", which those who prove "
		  "nothing cannot fulfil\n"
		  "f: routes[1].auth_optional: needs \"auth\"\n"
		  "f: routes[2].auth: must hold 1 to 8 names\n"
		  "f: routes[0].auth[2]: there is no auth \"ridr\"; did you mean \"rider\"?\n" },
	};

	for (size_t i = 0; i < CASES(cases); i++) {
		if (load(cases[i].text) != -EINVAL)
			fail_msg("%s\nis not refused", cases[i].text);
		if (strcmp(said, cases[i].want) != 0)
			fail_msg("%s\nsaid\n%swant\n%s", cases[i].text, said, cases[i].want);
	}
}

static void warns_of_what_is_hardly_meant(void **state)
{
	(void)state;
	assert_int_equal(load("{" LISTEN "," SERVICES "," AUTH ",'rate_limits':{"
			      "'per-ip':{'key':'ip','limit':1,'window_s':1},"
			      "'mixed':{'key':['endpoint','claim:t'],'limit':1,'window_s':1},"
			      "'user':{'key':'user','limit':1,'window_s':1}},"
			      "'defaults':{'limits':['user']},'routes':["
			      "{'name':'a','match':{'path':'/a'},'service':'feed','auth':'rider',"
			      "'limits':['user']},"
			      "{'name':'b','match':{'path':'/b'},'service':'feed',"
			      "'limits':['per-ip','mixed']}]}"),
			 0);
	assert_string_equal(said,
			    "f: routes[1].limits: warning: \"mixed\" counts by claim, but the "
			    "route has no \"auth\": by the client's address instead\n");
}

static void the_examples_are_good(void **state)
{
	glob_t found;

	assert_int_equal(glob("config/domains/*.json", 0, NULL, &found), 0);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		struct conf_errors errors = { 0 };
		int rc;

		arena_fini(&arena);
		arena_init(&arena, 16384, 0);
		rc = conf_load(&conf, &gw_conf_object, found.gl_pathv[i], &arena, &errors);
		keep_errors(&errors);
		if (rc < 0)
			fail_msg("%s: %s", found.gl_pathv[i], said);
	}
	assert_true(found.gl_pathc >= 2);
	globfree(&found);
}

/* config/schema/gatewayd.json is made by `make schema`. */
static void the_schema_file_is_up_to_date(void **state)
{
	FILE *f = fopen("config/schema/gatewayd.json", "r");
	static char text[1 << 20];
	struct buf b;

	assert_non_null(f);
	text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
	fclose(f);
	buf_init(&b, 0);
	conf_schema_json(&gw_conf_object, "gatewayd", &b);
	if (!str_eqz(buf_str(&b), text))
		fail_msg("config/schema/gatewayd.json is out of date: run make schema");
	buf_fini(&b);
}

/* --- snapshots ----------------------------------------------------------------------------- */

static char folder[] = "/tmp/test_gw_conf.XXXXXX";

static const char *file_in(const char *name)
{
	static char path[4][128];
	static unsigned turn;
	char *out = path[turn++ % 4];

	snprintf(out, sizeof(path[0]), "%s/%s", folder, name);
	return out;
}

static void write_file(const char *name, const char *text)
{
	FILE *f = fopen(file_in(name), "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

#define KEYS(k) "{'keys':[{'kty':'oct','kid':'a','k':'" k "'}]}"
#define K1      "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"
#define K2      "YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODk"

static const char snapshot_text[] =
	"{" LISTEN ",'services':{'feed':{'endpoints':[{'address':'127.0.0.1:1'}]},'next':{"
	"'endpoints':[{'address':'127.0.0.1:2'}]},'last':{'endpoints':[{'address':'127.0.0.1:3'}]}}"
	","
	"'auth':{'rider':{'type':'jwt','issuer':'i','algorithms':['HS256'],'jwks':{'file':'%s'},"
	"'forward':{'sub':'X-User-Id','tenant':'X-Tenant'}}},"
	"'rate_limits':{'per-ip':{'key':'ip','limit':10,'window_s':60},'per-user':{'key':'user',"
	"'limit':5,'window_s':60},'global':{'key':'global','limit':9,'window_s':1}},"
	"'defaults':{'limits':['global','per-ip'],'response':{'remove':['Server']},"
	"'max_body_bytes':1000},"
	"'routes':[{'name':'user','match':{'path':'/api/v1/user/*'},'auth':'rider','limits':["
	"'per-user','per-ip'],'service':'feed','rewrite_prefix':'/user/','require':{'scope':"
	"['pay','read'],'tenant':'42'},'version':{'name':'v1','deprecated':'2026-06-01T00:00:00Z',"
	"'sunset':'2027-06-01T00:00:00Z','successor':'/api/v2/user/','enforce_sunset':true},"
	"'response':{'set':{'Cache-Control':'no-store'}}},"
	"{'name':'split','match':{'path':'/split'},'max_body_bytes':7,'split':[{'service':'feed',"
	"'weight':50},{'service':'next','weight':10},{'service':'last','weight':40}]},"
	"{'name':'ping','match':{'path':'/ping'},'respond':{'body':'pong'}}]}";

static struct snapshot *snapshot_of(const char *keys)
{
	struct conf_errors errors = { 0 };
	struct snapshot *s = NULL;
	char text[8192];
	int rc;

	write_file("keys.json", quoted(keys));
	snprintf(text, sizeof(text), snapshot_text, file_in("keys.json"));
	write_file("gw.json", quoted(text));
	rc = snapshot_load(&s, file_in("gw.json"), &errors);
	keep_errors(&errors);
	assert_int_equal(rc == 0, s != NULL);
	return s;
}

static void compiles_routes(void **state)
{
	struct snapshot *s = snapshot_of(KEYS(K1));
	const struct snapshot_route *user, *split;
	struct router_request request = { .path = STR("/api/v1/user/7"), .method = METHOD_GET };
	struct router_match m;
	struct http_field fields[8];
	struct headers h = { .fields = fields, .max = 8 };

	if (!s)
		fail_msg("%s", said);
	assert_int_equal(router_match(s->router, &request, &m), ROUTER_FOUND);
	user = &s->routes[m.route];
	split = &s->routes[1];
	assert_true(str_eqz(user->conf->name, "user"));
	assert_int_equal(user->auth_count, 1);
	assert_ptr_equal(user->auths[0], &s->auths[0]);
	assert_true(str_eqz(user->auths[0]->challenge, "Bearer realm=\"rider\""));
	assert_int_equal(user->limits_before_count, 2);
	assert_true(str_eqz(user->limits_before[0]->name, "global"));
	assert_int_equal(user->limits_after_count, 1);
	assert_int_equal(s->default_limit_count, 2);
	assert_int_equal(user->max_body_bytes, 1000);
	assert_int_equal(split->max_body_bytes, 7);
	assert_true(str_eqz(user->version->deprecation, "@1780272000"));
	assert_true(str_eqz(user->version->sunset, "Tue, 01 Jun 2027 00:00:00 GMT"));
	assert_true(str_eqz(user->version->link, "</api/v2/user/>; rel=\"successor-version\""));
	assert_int_equal(user->version->gone_after_ms, 1811808000000);
	assert_null(split->version);

	headers_add(&h, STR("Server"), STR("x"));
	assert_true(headers_rules_apply(user->response, &h, NULL));
	assert_int_equal(h.count, 1);
	assert_true(str_eqz(h.fields[0].name, "Cache-Control"));
	headers_add(&h, STR("X_Tenant"), STR("x"));
	headers_add(&h, STR("x-user-id"), STR("x"));
	assert_int_equal(headers_guard_strip(s->guard, &h, true), 2);

	snapshot_put(&s);
	assert_null(s);
}

static void rewrites_the_prefix_that_matched(void **state)
{
	static const struct {
		const char *prefix, *path;
		size_t rest_at;
		const char *want;
	} cases[] = {
		{ "/user/", "/api/v1/user/7/x", 12, "/user/7/x" },
		{ "/user", "/api/v1/user/7", 12, "/user/7" },
		{ "/user/", "/api/v1/user", 12, "/user/" },
		{ "/user", "/api/v1/user", 12, "/user" },
		{ "/user/", "/api/v1/user/", 12, "/user/" },
		{ "/", "/api/x", 4, "/x" },
		{ "/", "/api", 4, "/" },
		{ "/x/", "/a", 0, "/x/a" },
	};

	for (size_t i = 0; i < CASES(cases); i++) {
		struct gw_route route = { .rewrite_prefix = str_from(cases[i].prefix) };
		struct snapshot_route compiled = { .conf = &route };
		struct router_match m = { .rest_at = cases[i].rest_at };
		struct str got = snapshot_rewrite_path(&compiled, str_from(cases[i].path), &m,
						       &arena);

		if (!str_eqz(got, cases[i].want))
			fail_msg("%s of %s: %.*s", cases[i].prefix, cases[i].path, STR_ARG(got));
	}
}

static void asks_for_every_required_claim(void **state)
{
	static const struct {
		const char *claims, *missing;
	} cases[] = {
		{ "{'scope':'x pay','tenant':42}", NULL },
		{ "{'scope':['read'],'tenant':'42'}", NULL },
		{ "{'scope':'payment','tenant':42}", "scope" },
		{ "{'tenant':42}", "scope" },
		{ "{'scope':'pay','tenant':421}", "tenant" },
	};
	struct snapshot *s = snapshot_of(KEYS(K1));

	assert_non_null(s);
	for (size_t i = 0; i < CASES(cases); i++) {
		struct identity *id = identity_new(str_from(quoted(cases[i].claims)), STR("sub"),
						   0);
		struct str missing = { 0 };

		assert_int_equal(snapshot_fulfils(&s->routes[0], id, &missing), !cases[i].missing);
		if (cases[i].missing)
			assert_true(str_eqz(missing, cases[i].missing));
		identity_put(&id);
	}
	snapshot_put(&s);
}

static uint64_t fingerprint_of(const struct snapshot *s)
{
	struct auth_view view = { 0 };
	uint64_t fingerprint;

	assert_true(auth_view_update(&view, s->auths[0].keys));
	assert_false(auth_view_update(&view, s->auths[0].keys));
	fingerprint = snapshot_auth_fingerprint(&s->auths[0], &view);
	auth_view_fini(&view);
	return fingerprint;
}

static void fingerprints_follow_rules_and_keys(void **state)
{
	struct snapshot *a = snapshot_of(KEYS(K1)), *b = snapshot_of(KEYS(K1)),
			*c = snapshot_of(KEYS(K2));

	assert_true(a && b && c);
	assert_int_equal(fingerprint_of(a), fingerprint_of(b));
	assert_int_not_equal(fingerprint_of(a), fingerprint_of(c));
	assert_int_not_equal(a->generation, b->generation);
	snapshot_ref(a);
	snapshot_put(&b);
	snapshot_put(&c);
	b = a;
	snapshot_put(&b);
	assert_int_equal(a->refs, 1);
	snapshot_put(&a);
}

static void names_files_that_are_missing_or_wrong(void **state)
{
	struct conf_errors errors = { 0 };
	struct snapshot *s = NULL;
	char want[512];

	assert_null(snapshot_of("{'keys':[{'kty':'oct','kid':'a','k':'AAAA'}]}"));
	snprintf(want, sizeof(want),
		 "f: auth.rider.jwks.file: %s: keys[0] (kid \"a\"): a secret must have at least 32 "
		 "bytes\n",
		 file_in("keys.json"));
	assert_string_equal(said, want);

	write_file("gw.json",
		   quoted("{'domain':'d','listeners':[{'bind':'*:1','tls':{'certificates':[{"
			  "'certificate':'/nonexistent/c','key':'/nonexistent/k'}]}}],'routes':[{"
			  "'name':'a','match':{'path':'/'},'respond':{}}]}"));
	assert_int_equal(snapshot_load(&s, file_in("gw.json"), &errors), -EINVAL);
	keep_errors(&errors);
	assert_string_equal(said, "f: listeners[0].tls.certificates[0].certificate: "
				  "/nonexistent/c: cannot read the certificate: No such "
				  "file or directory\n"
				  "f: listeners[0].tls.certificates[0].key: /nonexistent/k: "
				  "cannot read the key: No such file or directory\n");
	assert_int_equal(snapshot_load(&s, file_in("none.json"), &errors), -EINVAL);
	keep_errors(&errors);
	assert_string_equal(said, "f: cannot read it: No such file or directory\n");
}

static int make_folder(void **state)
{
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	unlink(file_in("gw.json"));
	unlink(file_in("keys.json"));
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fills_defaults),
		cmocka_unit_test(tells_each_mistake_with_its_path),
		cmocka_unit_test(warns_of_what_is_hardly_meant),
		cmocka_unit_test(the_examples_are_good),
		cmocka_unit_test(the_schema_file_is_up_to_date),
		cmocka_unit_test(compiles_routes),
		cmocka_unit_test(rewrites_the_prefix_that_matched),
		cmocka_unit_test(asks_for_every_required_claim),
		cmocka_unit_test(fingerprints_follow_rules_and_keys),
		cmocka_unit_test(names_files_that_are_missing_or_wrong),
	};
	int rc = cmocka_run_group_tests_name("gw_conf", tests, make_folder, remove_folder);

	arena_fini(&arena);
	return rc;
}
