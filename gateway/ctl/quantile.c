/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/ctl/quantile.h"

double ctl_quantile(const json_t *before, const json_t *now, const json_t *bounds_us, double share)
{
	size_t count = json_array_size(now);
	double total = 0, sum = 0, from_us = 0;

	for (size_t i = 0; i < count; i++)
		total += json_number_value(json_array_get(now, i)) -
			 json_number_value(json_array_get(before, i));
	if (total <= 0)
		return -1;
	for (size_t i = 0; i < json_array_size(bounds_us); i++) {
		double here = json_number_value(json_array_get(now, i)) -
			      json_number_value(json_array_get(before, i));
		double to_us = json_number_value(json_array_get(bounds_us, i));

		if (here > 0 && sum + here >= share * total)
			return (from_us + (to_us - from_us) * (share * total - sum) / here) / 1000;
		sum += here;
		from_us = to_us;
	}
	return from_us / 1000;
}
