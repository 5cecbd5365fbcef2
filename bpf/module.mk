BPF_OBJECTS := $(OUT)/bpf/nlb.bpf.o $(OUT)/bpf/decap.bpf.o
BPF_SKELETONS := $(OUT)/skel/nlb.skel.h $(OUT)/skel/decap.skel.h
BPF_TEST_OBJS := $(patsubst %.c,$(OUT)/obj/%.o,$(wildcard tests/bpf/test_*.c))
# Skeletons are system headers to the compiler, so its dependency files leave them out.
$(OUT)/obj/nlb/loader.o $(OUT)/obj/nlb/decap.o $(BPF_TEST_OBJS): $(BPF_SKELETONS)
