registry_SRC := $(filter-out registry/main.c $(wildcard registry/ctl/*.c),$(wildcard registry/*.c registry/*/*.c))
PROGRAMS += registryd registryctl
registryd_MAIN := registry/main.c
registryctl_MAIN := $(wildcard registry/ctl/*.c)
$(OUT)/obj/registry/page.o: registry/page.html
