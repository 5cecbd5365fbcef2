# The daemon waits for the registry's client.
PROGRAMS += nlbctl $(if $(wildcard registry/client.c),nlbd)
nlbd_MAIN := nlb/main.c
nlbctl_MAIN := nlb/nlbctl.c
nlb_SRC := $(filter-out $(nlbd_MAIN) $(nlbctl_MAIN),$(wildcard nlb/*.c))
