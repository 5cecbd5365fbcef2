# Tests: the lab's own BPF object, and the runner behind `make check`.

LAB_BPF := $(OUT)/tests/bpf/pass.bpf.o
tests: $(LAB_BPF)

$(OUT)/tests/bpf/%.bpf.o: tests/bpf/%.bpf.c
	$(call say,BPF,$@)
	@mkdir -p $(@D)
	$(Q)$(BPF_CLANG) $(BPF_CFLAGS) -c -o $@ $<

# Installing comes first and building in a make of its own: what is installed decides the rules.
RUN_TESTS = scripts/install-deps.sh build check && $(MAKE) -s --no-print-directory programs tests && \
	GATEHOUSE_BUILD=$(OUT) /usr/bin/python3 tests/run.py
check:
	@$(RUN_TESTS)
check-unit check-bpf check-e2e:
	@$(RUN_TESTS) $(@:check-%=%)
asan tsan:
	@$(MAKE) -s --no-print-directory SAN=$@ check

demo:
	@scripts/install-deps.sh build demo && $(MAKE) -s --no-print-directory programs $(LAB_BPF) && \
		GATEHOUSE_BUILD=$(OUT) /usr/bin/python3 tests/e2e/demo.py
lab:
	@scripts/install-deps.sh build demo && $(MAKE) -s --no-print-directory programs $(LAB_BPF) && \
		GATEHOUSE_BUILD=$(OUT) /usr/bin/python3 tests/e2e/demo.py --lab
lab-down:
	@/usr/bin/python3 tests/e2e/demo.py --down

include tests/bench/module.mk
