# Fuzzing: each fuzz_*.c here is a harness. Linked with driver.c it reads files, for `make check` over
# corpus/NAME, built as everything else is; linked with libFuzzer (SAN=fuzz, by clang) it invents them.

FUZZ_SECONDS ?= 20
FUZZ ?=
FUZZ_MERGE ?=
FUZZ_HARNESSES := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_TESTS := $(FUZZ_HARNESSES:%=$(OUT)/tests/fuzz/%)
FUZZ_COMMON := $(patsubst %.c,$(OUT)/obj/%.o,$(filter-out tests/fuzz/fuzz_%.c \
	$(if $(filter fuzz,$(SAN)),tests/fuzz/driver.c),$(wildcard tests/fuzz/*.c)))
ifneq ($(SAN),fuzz)
tests: $(FUZZ_TESTS)
endif
.PHONY: fuzz-programs
fuzz-programs: $(FUZZ_TESTS)
$(FUZZ_TESTS): $(OUT)/tests/fuzz/%: $(OUT)/obj/tests/fuzz/fuzz_%.o $(FUZZ_COMMON) $(ARCHIVES) $(LLHTTP_OBJ)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) $(if $(filter fuzz,$(SAN)),-fsanitize=fuzzer) -o $@ $< $(FUZZ_COMMON) \
		-Wl,--start-group $(ARCHIVES) -Wl,--end-group $(LLHTTP_OBJ) $(LIBS)
fuzz:
	@scripts/install-deps.sh build check
	@$(MAKE) -s --no-print-directory SAN=fuzz $(if $(FUZZ),$(FUZZ:%=build/fuzz/tests/fuzz/%),fuzz-programs)
	@/usr/bin/python3 tests/fuzz/run.py --seconds $(FUZZ_SECONDS) $(if $(FUZZ_MERGE),--merge) $(FUZZ)
