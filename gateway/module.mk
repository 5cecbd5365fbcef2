gateway_SRC := $(filter-out gateway/main.c gateway/ctl_main.c,$(wildcard gateway/*.c) $(wildcard gateway/*/*.c))
