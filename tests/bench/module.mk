# Benchmarks. BENCH passes options on: make bench BENCH="--quick --only gateway". Every C file here is
# a program of its own.

BENCH ?=
BENCH_PROGRAMS := $(patsubst tests/bench/%.c,$(OUT)/tests/bench/%,\
	$(filter-out %.bpf.c,$(wildcard tests/bench/*.c)))
.PHONY: bench-programs
bench-programs: $(BENCH_PROGRAMS)

bench:
	@scripts/install-deps.sh build check bench && \
		$(MAKE) -s --no-print-directory programs bench-programs && \
		GATEHOUSE_BUILD=$(OUT) /usr/bin/python3 tests/bench/bench.py $(BENCH)
