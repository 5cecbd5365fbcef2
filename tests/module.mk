# Tests: the lab's own BPF object, and the runner behind `make check`.

LAB_BPF := $(OUT)/tests/bpf/pass.bpf.o
tests: $(LAB_BPF)

$(OUT)/tests/bpf/%.bpf.o: tests/bpf/%.bpf.c
	$(call say,BPF,$@)
	@mkdir -p $(@D)
	$(Q)$(BPF_CLANG) $(BPF_CFLAGS) -c -o $@ $<

# What sends floods in the lab.
FLOOD := $(OUT)/tests/flood
tests: $(FLOOD)
$(FLOOD): tests/e2e/flood.c
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -D_GNU_SOURCE $(CFLAGS_ALL) -o $@ $< $(LDFLAGS_ALL)

# Load that counts what is lost. Never under a sanitizer, which knows nothing of what OpenSSL does.
STEADY := $(OUT)/tests/steady
tests: $(STEADY)
$(STEADY): tests/e2e/steady.c
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -D_GNU_SOURCE -std=gnu17 -O2 -Wall -Wextra -Werror -o $@ $< -lssl -lcrypto

# For tests of programs whose clock is wrong.
WRONG_CLOCK := $(OUT)/tests/wrong_clock.so
tests: $(WRONG_CLOCK)
$(WRONG_CLOCK): tests/e2e/wrong_clock.c
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -D_GNU_SOURCE -O2 -Wall -Werror -fPIC -shared -o $@ $<

# nlbd with the packet program of another version, for tests of upgrades: the same source, other
# instructions.
NEXT := $(OUT)/tests/next
tests: $(NEXT)/nlbd
$(NEXT)/nlb.bpf.o: bpf/nlb.bpf.c $(wildcard bpf/*.h)
	$(call say,BPF,$@)
	@mkdir -p $(@D)
	$(Q)$(BPF_CLANG) $(BPF_CFLAGS) -mcpu=v2 -c -o $@ $<
$(NEXT)/nlb.skel.h: $(NEXT)/nlb.bpf.o
	$(Q)bpftool gen skeleton $< name nlb_bpf > $@
$(NEXT)/loader.o: nlb/loader.c $(NEXT)/nlb.skel.h $(wildcard nlb/*.h lib/*.h)
	$(Q)$(CC) -isystem $(NEXT) $(CPPFLAGS) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<
-include $(wildcard $(NEXT)/*.d)
$(NEXT)/nlbd: $(NEXT)/loader.o $(OUT)/obj/nlb/main.o $(ARCHIVES) $(LLHTTP_OBJ)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $(NEXT)/loader.o $(OUT)/obj/nlb/main.o -Wl,--start-group $(ARCHIVES) \
		-Wl,--end-group $(LLHTTP_OBJ) $(LIBS)

# Installing comes first and building in a make of its own: what is installed decides the rules. A line
# for each, since make -n runs lines that name $(MAKE): that one only, and with -n handed on.
RUN_TESTS = GATEHOUSE_BUILD=$(OUT) /usr/bin/python3 tests/run.py
check check-unit check-bpf check-fuzz check-e2e:
	@scripts/install-deps.sh build check
	@$(MAKE) -s --no-print-directory programs tests
	@$(RUN_TESTS) $(filter-out check,$(@:check-%=%))
# The packet tests under Debian's stock kernel, in a virtual machine.
.PHONY: check-vm
check-vm:
	@scripts/install-deps.sh build check vm
	@$(MAKE) -s --no-print-directory programs tests
	@GATEHOUSE_BUILD=$(OUT) /usr/bin/python3 tests/vm/run.py $(KERNEL)
asan tsan:
	@$(MAKE) -s --no-print-directory SAN=$@ check

# Which lines tests reach: make coverage COVERAGE="unit fuzz e2e"
COVERAGE ?= unit fuzz
coverage:
	@scripts/install-deps.sh build check
	@$(MAKE) -s --no-print-directory SAN=cov programs tests
	@/usr/bin/python3 tests/coverage.py $(COVERAGE)

demo:
	@scripts/install-deps.sh build demo
	@$(MAKE) -s --no-print-directory programs $(LAB_BPF)
	@GATEHOUSE_BUILD=$(OUT) /usr/bin/python3 tests/e2e/demo.py
lab:
	@scripts/install-deps.sh build demo
	@$(MAKE) -s --no-print-directory programs $(LAB_BPF)
	@GATEHOUSE_BUILD=$(OUT) /usr/bin/python3 tests/e2e/demo.py --lab
lab-down:
	@/usr/bin/python3 tests/e2e/demo.py --down

include tests/bench/module.mk
include tests/fuzz/module.mk
