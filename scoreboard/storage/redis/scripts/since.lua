-- Since when the windows of the rate limits are complete.
-- KEYS: since. ARGV: "look"; or "reset", which begins them now; or "complete", the since that was looked at, and how
-- much earlier it may be (ms)
-- Returns since when they are complete, and now (ms).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local since = tonumber(redis.call('GET', KEYS[1]) or 0)
if since == 0 or ARGV[1] == 'reset' then
  since = now
elseif ARGV[1] == 'complete' and since == tonumber(ARGV[2]) then
  since = since - tonumber(ARGV[3])
else
  return {since, now}
end
redis.call('SET', KEYS[1], string.format('%d', since))
return {since, now}
