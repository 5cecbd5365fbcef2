# Benchmarks. BENCH passes options on: make bench BENCH="--quick --only gateway". Every C file here is
# a program of its own, and nlb/ is one.

BENCH ?=
BENCH_PROGRAMS := $(patsubst tests/bench/%.c,$(OUT)/tests/bench/%,\
	$(filter-out %.bpf.c,$(wildcard tests/bench/*.c)))
BENCH_PROGRAMS += $(OUT)/tests/bench/nlb
BENCH_NLB_OBJS := $(patsubst %.c,$(OUT)/obj/%.o,$(wildcard tests/bench/nlb/*.c))
BENCH_SKELETONS := $(OUT)/skel/nlb_harness.skel.h $(OUT)/skel/nlb_floor.skel.h
.PHONY: bench-programs
bench-programs: $(BENCH_PROGRAMS)

# The benchmark's BPF objects have their sources here; make takes the rule whose source exists.
$(OUT)/bpf/%.bpf.o: tests/bench/%.bpf.c
	$(call say,BPF,$@)
	@mkdir -p $(@D)
	$(Q)$(BPF_CLANG) $(BPF_CFLAGS) -c -o $@ $<
$(BENCH_NLB_OBJS): $(BPF_SKELETONS) $(BENCH_SKELETONS)
$(OUT)/tests/bench/nlb: $(BENCH_NLB_OBJS) $(ARCHIVES) $(LLHTTP_OBJ)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $(BENCH_NLB_OBJS) -Wl,--start-group $(ARCHIVES) -Wl,--end-group \
		$(LLHTTP_OBJ) $(LIBS)

bench:
	@scripts/install-deps.sh build check bench
	@$(MAKE) -s --no-print-directory programs bench-programs
	@GATEHOUSE_BUILD=$(OUT) /usr/bin/python3 tests/bench/bench.py $(BENCH)
