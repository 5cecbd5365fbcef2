# gatehouse: the only build rules. Every folder adds a module.mk that lists its sources.
#
#   make            build everything into build/
#   make demo       the whole chain in network namespaces, step by step (root)
#   make check      build, then all tests; says what it skipped and why
#   make check-vm   the packet tests under Debian's stock kernel, in a virtual machine
#   make lab        the demo's network, left running; make lab-down removes it
#   make bench      benchmarks beside HAProxy, nginx and a bare XDP program
#   make lint       clang-format, clang-tidy, cppcheck, gcc -fanalyzer, shellcheck
#   make asan tsan  the test suite under sanitizers; also: make check-unit SAN=tsan
#   make fuzz       each fuzz harness for FUZZ_SECONDS (20), or FUZZ=name; FUZZ_MERGE=1 keeps finds
#   make coverage   which lines the tests reach, by folder; COVERAGE="unit fuzz e2e"
#   make install    DESTDIR= PREFIX=/usr; make uninstall takes it away again
#   make schema     write config/schema/ and docs/man/*.5 anew from the programs' own descriptions
#   make deps       install what building and testing need (Debian, root)
#
# V=1 shows whole command lines; CC=clang-14 OUT=build/clang builds a variant aside.

VERSION := 0.1.0
PREFIX ?= /usr
SAN ?=
OUT ?= build$(if $(SAN),/$(SAN))
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-6s %s\n' '$(1)' '$(2)')

ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(origin CXX),default)
CXX := g++
endif
ifeq ($(SAN),fuzz) # libFuzzer is clang's
CC := $(if $(findstring clang,$(CC)),$(CC),clang)
CXX := $(patsubst clang%,clang++%,$(CC))
endif
BPF_CLANG ?= clang
is_clang := $(findstring clang,$(notdir $(CC)))

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all deps check check-unit check-bpf check-fuzz check-e2e demo lab lab-down bench lint asan tsan fuzz coverage install clean
all: programs

# --- flags -----------------------------------------------------------------------------------

WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition \
	-Wvla -Wundef -Wpointer-arith -Wwrite-strings -Wcast-qual -Wcast-align -Wformat=2 -Wimplicit-fallthrough \
	-Wnull-dereference -Wdouble-promotion -Wredundant-decls -Wconversion -Wno-sign-conversion
ifneq ($(is_clang),)
WARN += -Wcomma -Wextra-semi -Wconditional-uninitialized -Wmissing-variable-declarations
else
WARN += -Wlogical-op -Wduplicated-cond -Wduplicated-branches -Wformat-truncation=2 -Wformat-overflow=2 \
	-Walloc-zero -Wjump-misses-init
endif
HARDEN := -fstack-protector-strong -fstack-clash-protection -fPIE -fno-omit-frame-pointer
LDHARDEN := -pie -Wl,-z,relro,-z,now
OPT := -O2 -D_FORTIFY_SOURCE=2
ifeq ($(SAN),asan)
OPT := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all
# The sanitizers' instrumentation makes gcc see null paths that are not there.
WARN += -Wno-null-dereference -Wno-format-truncation -Wno-maybe-uninitialized
LDFLAGS += -fsanitize=address,undefined
endif
ifeq ($(SAN),tsan)
OPT := -O1 -fsanitize=thread
WARN += -Wno-null-dereference -Wno-maybe-uninitialized -Wno-tsan
LDFLAGS += -fsanitize=thread
endif
ifeq ($(SAN),fuzz)
# Checks of C++ types need libraries that a link by the C compiler leaves out.
OPT := -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize=vptr,function -fno-sanitize-recover=all
LDFLAGS += -fsanitize=address,undefined
endif
ifeq ($(SAN),cov)
OPT := -O0 --coverage
# gcc 12 crashes over it here (warn-printf).
WARN += -Wno-format-truncation -Wno-format-overflow
LDFLAGS += --coverage
endif
LLHTTP_INC := $(firstword $(wildcard /usr/share/include/llhttp /usr/include))
LLHTTP_SRC := $(wildcard /usr/share/llhttp/*.c)
CPPFLAGS += -I. -I$(OUT)/gen -isystem $(OUT)/skel -isystem /usr/share/include -D_GNU_SOURCE \
	-DGATEHOUSE_VERSION='"$(VERSION)"'
WARN_CXX := -Wall -Wextra -Werror -Wshadow -Wpointer-arith -Wcast-qual -Wformat=2 -Wnull-dereference \
	-Wno-missing-field-initializers
CXXFLAGS_ALL = -std=gnu++20 -g $(OPT) $(WARN_CXX) $(if $(SAN),-Wno-null-dereference) $(HARDEN) $(CXXFLAGS) -pthread
CFLAGS_ALL = -std=gnu17 -g $(OPT) $(WARN) $(HARDEN) $(CFLAGS) -pthread
LDFLAGS_ALL = $(LDHARDEN) $(LDFLAGS) -pthread
# Only the gateway translates gRPC: the other programs do without what is C++.
LIBS := -lssl -lcrypto -lnghttp2 -ljansson -lexpat -lz -lhiredis -lbpf -lelf -lm $(if $(LLHTTP_SRC),,-lllhttp) \
	-Wl,--push-state,--as-needed -lprotobuf -lstdc++ -Wl,--pop-state
BPF_CFLAGS := -target bpf -mcpu=v3 -std=gnu17 -O2 -g -Wall -Wextra -Werror -Wshadow -Wimplicit-int-conversion \
	-Wenum-conversion -Wno-address-of-packed-member -idirafter /usr/include/$(shell uname -m)-linux-gnu -I.

# --- modules ---------------------------------------------------------------------------------

MODULES := lib bpf registry nlb gateway
PROGRAMS :=
include $(wildcard $(MODULES:%=%/module.mk))

# An archive per folder; programs are one main file plus the archives, so tests link the same code.
ARCHIVES := $(foreach m,gateway nlb registry lib,$(if $($(m)_SRC),$(OUT)/$(m).a))
objs = $(patsubst %.c,$(OUT)/obj/%.o,$(filter %.c,$(1))) $(patsubst %.cc,$(OUT)/obj/%.o,$(filter %.cc,$(1)))

define archive
$(OUT)/$(1).a: $(call objs,$($(1)_SRC))
	$$(call say,AR,$$@)
	$(Q)rm -f $$@ && $(AR) rcs $$@ $$^
endef
$(foreach m,gateway nlb registry lib,$(if $($(m)_SRC),$(eval $(call archive,$(m)))))

LLHTTP_OBJ := $(patsubst /usr/share/llhttp/%.c,$(OUT)/obj/llhttp/%.o,$(LLHTTP_SRC))
$(OUT)/obj/llhttp/%.o: /usr/share/llhttp/%.c
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu17 -g $(OPT) -w $(HARDEN) -DLLHTTP_STRICT_MODE=1 -I$(LLHTTP_INC) -c -o $@ $<

define program
programs: $(OUT)/$(1)
$(OUT)/$(1): $(call objs,$($(1)_MAIN)) $(ARCHIVES) $(LLHTTP_OBJ)
	$$(call say,LD,$$@)
	$(Q)$(CC) $$(LDFLAGS_ALL) -o $$@ $(call objs,$($(1)_MAIN)) -Wl,--start-group $(ARCHIVES) -Wl,--end-group $(LLHTTP_OBJ) $(LIBS) $($(1)_LIBS)
endef
.PHONY: programs
programs:
$(foreach p,$(PROGRAMS),$(eval $(call program,$(p))))

$(OUT)/obj/%.o: %.c | $(BPF_SKELETONS)
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

$(OUT)/obj/%.o: %.cc
	$(call say,CXX,$@)
	@mkdir -p $(@D)
	$(Q)$(CXX) $(CPPFLAGS) $(CXXFLAGS_ALL) -MMD -MP -c -o $@ $<

$(OUT)/bpf/%.bpf.o: bpf/%.bpf.c $(wildcard bpf/*.h)
	$(call say,BPF,$@)
	@mkdir -p $(@D)
	$(Q)$(BPF_CLANG) $(BPF_CFLAGS) -c -o $@ $<

$(OUT)/skel/%.skel.h: $(OUT)/bpf/%.bpf.o
	$(call say,SKEL,$@)
	@mkdir -p $(@D)
	$(Q)bpftool gen skeleton $< name $*_bpf > $@

# cmocka hands every test a state that few of them use.
$(OUT)/obj/tests/%.o: CFLAGS += -Wno-unused-parameter

-include $(shell [ -d $(OUT)/obj ] && find $(OUT)/obj -name '*.d')

# --- dependencies, installation ----------------------------------------------------------------

.PHONY: schema
schema: programs
	$(Q)for p in $(filter nlbd gatewayd registryd,$(PROGRAMS)); do \
		$(OUT)/$$p --schema > config/schema/$$p.json || exit 1; done
	$(Q)scripts/schema-to-man.py

# Daemons go to sbin, what people type to bin; the BPF objects are inside nlbd and nlbctl. The units
# name /usr/sbin and /usr/bin, and pages /usr/share/doc, which another PREFIX takes the place of.
DAEMONS := $(filter nlbd gatewayd registryd,$(PROGRAMS))
TOOLS := $(filter-out $(DAEMONS),$(PROGRAMS))
UNITS := $(notdir $(wildcard config/systemd/*.service))
EXAMPLES := $(patsubst config/%,%,$(wildcard config/*.json config/domains/*.json \
	config/bird/*.conf config/frr/*.conf config/keepalived/*.conf))
SCHEMAS := $(notdir $(wildcard config/schema/*.json))
MAN_PAGES := $(notdir $(wildcard docs/man/*.[158]))
PAGES := $(notdir $(wildcard docs/*.md)) LICENSE
UNIT_DIR ?= /lib/systemd/system
SYSUSERS_DIR ?= /usr/lib/sysusers.d
TMPFILES_DIR ?= /usr/lib/tmpfiles.d
MAN_DIR ?= $(PREFIX)/share/man
DOC_DIR ?= $(PREFIX)/share/doc/gatehouse
man_path = $(MAN_DIR)/man$(subst .,,$(suffix $(1)))/$(1)
INSTALL := install -D -m
name_doc_dir = sed -i 's,/usr/share/doc/gatehouse,$(DOC_DIR),g'

.PHONY: uninstall
install: programs
	$(Q)for p in $(DAEMONS); do $(INSTALL) 755 $(OUT)/$$p $(DESTDIR)$(PREFIX)/sbin/$$p || exit 1; done
	$(Q)for p in $(TOOLS); do $(INSTALL) 755 $(OUT)/$$p $(DESTDIR)$(PREFIX)/bin/$$p || exit 1; done
	$(Q)$(foreach m,$(MAN_PAGES),$(INSTALL) 644 docs/man/$(m) $(DESTDIR)$(call man_path,$(m)) && \
		$(name_doc_dir) $(DESTDIR)$(call man_path,$(m)) &&) true
	$(Q)for u in $(UNITS); do $(INSTALL) 644 config/systemd/$$u $(DESTDIR)$(UNIT_DIR)/$$u && \
		sed -i 's,=/usr/\(s\?bin\)/,=$(PREFIX)/\1/,' $(DESTDIR)$(UNIT_DIR)/$$u || exit 1; done
	$(Q)$(INSTALL) 644 config/systemd/sysusers.conf $(DESTDIR)$(SYSUSERS_DIR)/gatehouse.conf
	$(Q)$(INSTALL) 644 config/systemd/tmpfiles.conf $(DESTDIR)$(TMPFILES_DIR)/gatehouse.conf
	$(Q)for d in $(PAGES); do from=docs/$$d; [ -e $$from ] || from=$$d; \
		$(INSTALL) 644 $$from $(DESTDIR)$(DOC_DIR)/$$d && \
		$(name_doc_dir) $(DESTDIR)$(DOC_DIR)/$$d || exit 1; done
	$(Q)for e in $(EXAMPLES); do $(INSTALL) 644 config/$$e $(DESTDIR)$(DOC_DIR)/examples/$$e || exit 1; done
	$(Q)for s in $(SCHEMAS); do $(INSTALL) 644 config/schema/$$s $(DESTDIR)$(DOC_DIR)/schema/$$s || exit 1; done

# What install put there; configurations, logs and state stay.
uninstall:
	$(Q)rm -f $(DAEMONS:%=$(DESTDIR)$(PREFIX)/sbin/%) $(TOOLS:%=$(DESTDIR)$(PREFIX)/bin/%) \
		$(foreach m,$(MAN_PAGES),$(DESTDIR)$(call man_path,$(m))) $(UNITS:%=$(DESTDIR)$(UNIT_DIR)/%) \
		$(DESTDIR)$(SYSUSERS_DIR)/gatehouse.conf $(DESTDIR)$(TMPFILES_DIR)/gatehouse.conf
	$(Q)rm -rf $(DESTDIR)$(DOC_DIR)

deps:
	scripts/install-deps.sh build check

clean:
	rm -rf build

# --- lint: `make lint LINT="format tidy"` for some parts only; scripts/lint.sh lists them ----------

# make predefines LINT as "lint", so ?= would leave that.
ifeq ($(origin LINT),default)
LINT :=
endif
LINT_SKELETONS := $(patsubst %.bpf.c,$(OUT)/skel/%.skel.h,$(notdir $(wildcard bpf/*.bpf.c tests/bench/*.bpf.c)))
.PHONY: lint-run
lint:
	@scripts/install-deps.sh build check lint
	@$(MAKE) -s --no-print-directory lint-run
lint-run: export LINT_CFLAGS = $(CPPFLAGS) -std=gnu17
lint-run: export LINT_BPF_CFLAGS = $(BPF_CFLAGS)
lint-run: $(LINT_SKELETONS)
	@scripts/lint.sh $(LINT)

# --- tests -------------------------------------------------------------------------------------

UNIT_TESTS := $(patsubst tests/unit/%.c,$(OUT)/tests/unit/%,$(wildcard tests/unit/test_*.c))
BPF_TESTS := $(patsubst tests/bpf/%.c,$(OUT)/tests/bpf/%,$(wildcard tests/bpf/test_*.c))
.PHONY: tests
tests: $(UNIT_TESTS) $(BPF_TESTS)
$(OUT)/tests/%: $(OUT)/obj/tests/%.o $(ARCHIVES) $(LLHTTP_OBJ)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $< -Wl,--start-group $(ARCHIVES) -Wl,--end-group $(LLHTTP_OBJ) $(LIBS) -lcmocka
# Read last: what its programs depend on, the archives, must be known by then.
include tests/module.mk
