/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Passes every packet. A veth accepts what its peer transmits from XDP only while it has a program.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

SEC("xdp")
int pass(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
