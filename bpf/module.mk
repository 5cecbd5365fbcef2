BPF_OBJECTS := $(OUT)/bpf/nlb.bpf.o $(OUT)/bpf/decap.bpf.o
BPF_SKELETONS := $(OUT)/skel/nlb.skel.h $(OUT)/skel/decap.skel.h
BPF_TEST_OBJS := $(patsubst %.c,$(OUT)/obj/%.o,$(wildcard tests/bpf/test_*.c))
# Skeletons are system headers to the compiler, so its dependency files leave them out.
$(OUT)/obj/nlb/loader.o $(OUT)/obj/nlb/decap.o $(BPF_TEST_OBJS) $(OUT)/obj/tests/bench/nlb.o: \
	$(BPF_SKELETONS)

# The benchmark's objects have their sources beside it; make takes the rule whose source exists.
$(OUT)/bpf/%.bpf.o: tests/bench/%.bpf.c
	$(call say,BPF,$@)
	@mkdir -p $(@D)
	$(Q)$(BPF_CLANG) $(BPF_CFLAGS) -c -o $@ $<
$(OUT)/obj/tests/bench/nlb.o: $(OUT)/skel/nlb_harness.skel.h $(OUT)/skel/nlb_floor.skel.h
