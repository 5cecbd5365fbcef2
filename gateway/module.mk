gateway_MAINS := gateway/main.c gateway/gatewayctl.c
gateway_SRC := $(filter-out $(gateway_MAINS),$(wildcard gateway/*.c gateway/*/*.c))

# The daemon waits for the registry's client.
PROGRAMS += gatewayctl $(if $(wildcard registry/client.c),gatewayd)
gatewayd_MAIN := gateway/main.c
gatewayctl_MAIN := gateway/gatewayctl.c
