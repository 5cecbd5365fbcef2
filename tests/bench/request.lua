-- SPDX-License-Identifier: Apache-2.0
-- wrk's side of the gateway benchmark. Every request is written out once, before the clock runs, and
-- then sent in turn: tokens of all users, paths of both pools, a device per user.
--
-- usage: wrk … -s request.lua URL -- BODY_BYTES USERS_FILE PATH [PATH…]
-- USERS_FILE holds a line per token: the device, and after a space the token unless there is none.
-- BODY_BYTES above 0: each request is a POST with so large a body.

local requests = {}
local at = 0

function init(args)
   local paths = {}
   for i = 3, #args do paths[#paths + 1] = args[i] end
   local bytes = tonumber(args[1])
   local method, body = "GET", nil
   if bytes > 0 then method, body = "POST", string.rep("x", bytes) end
   for line in io.lines(args[2]) do
      local device, token = line:match("^(%S+)%s*(%S*)$")
      wrk.headers["User-Agent"] = "gatehouse-bench/1"
      wrk.headers["Accept"] = "application/json"
      wrk.headers["X-Device-Id"] = device
      if token ~= "" then wrk.headers["Authorization"] = "Bearer " .. token end
      requests[#requests + 1] = wrk.format(method, paths[#requests % #paths + 1], nil, body)
   end
end

function request()
   at = at % #requests + 1
   return requests[at]
end

function done(summary, latency)
   io.write(string.format(
      '\n{"requests": %d, "duration_us": %d, "bytes": %d, "bad_status": %d, "broken": %d, ' ..
      '"timeouts": %d, "p50_us": %d, "p99_us": %d}\n',
      summary.requests, summary.duration, summary.bytes, summary.errors.status,
      summary.errors.connect + summary.errors.read + summary.errors.write,
      summary.errors.timeout, latency:percentile(50), latency:percentile(99)))
end
