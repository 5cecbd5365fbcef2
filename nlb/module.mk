PROGRAMS += nlbd nlbctl
nlbd_MAIN := nlb/main.c
nlbctl_MAIN := nlb/nlbctl.c
nlb_SRC := $(filter-out $(nlbd_MAIN) $(nlbctl_MAIN),$(wildcard nlb/*.c))
