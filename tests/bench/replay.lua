-- wrk's part: sends requests that were signed beforehand, for a number of seconds, then waits for every answer that is still out.
-- With REPLAY it sends the file's records in order (five digits of length, then the request's bytes), without it the same GET for ever.
-- Prints one line of JSON. After the last send each connection is handed an empty request: nothing is written, nothing is timed,
-- and wrk's own end finds no request under way. So "answered" is exact, and can be compared with what the database holds.
local ffi = require("ffi")
ffi.cdef [[ typedef struct { long seconds; long nanoseconds; } moment; int clock_gettime(int clock, moment *now); ]]
local CLOCK_MONOTONIC, LENGTH = 1, 5
local moment = ffi.new("moment")
local records = os.getenv("REPLAY") and assert(io.open(os.getenv("REPLAY"), "rb"))
local seconds = tonumber(os.getenv("SECONDS"))
local get, first, threads = nil, nil, {}
sent, idle, elapsed = 0, 0, 0 -- global: read from outside by thread:get

local function now()
  ffi.C.clock_gettime(CLOCK_MONOTONIC, moment)
  return tonumber(moment.seconds) + tonumber(moment.nanoseconds) / 1e9
end

local function take()
  if not records then return get end
  local length = records:read(LENGTH)
  return length and records:read(tonumber(length))
end

function init() get = wrk.format() end

local asked = false
function request()
  if not asked then -- wrk's own look at what a request is like; it is not sent
    asked = true
    return get
  end
  local t = now()
  first = first or t
  local bytes = t - first < seconds and take()
  if bytes then
    sent = sent + 1
    return bytes
  end
  idle, elapsed = idle + 1, t - first
  return ""
end

function setup(thread) threads[#threads + 1] = thread end

function done(summary, latency)
  local thread, errors = threads[1], summary.errors
  print(string.format('{"sent": %d, "idle": %d, "answered": %d, "refused": %d, "broken": %d, "seconds": %.6f, "p50_us": %d, "p99_us": %d}',
    thread:get("sent"), thread:get("idle"), summary.requests, errors.status, errors.connect + errors.read + errors.write,
    thread:get("elapsed"), latency:percentile(50), latency:percentile(99)))
end
