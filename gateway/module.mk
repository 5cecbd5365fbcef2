gateway_MAINS := gateway/main.c gateway/ctl/gatewayctl.c
gateway_SRC := $(filter-out $(gateway_MAINS),$(wildcard gateway/*.c gateway/*/*.c gateway/*/*.cc))

PROGRAMS += gatewayd gatewayctl
gatewayd_MAIN := gateway/main.c
gatewayctl_MAIN := gateway/ctl/gatewayctl.c
