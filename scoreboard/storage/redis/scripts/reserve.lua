-- Judges a batch of actions in the specification's order: rate limit, cooldown, then validation. By Redis' own clock.
--
-- KEYS: since when the windows are complete; then window, cooldown of each action
-- ARGV: limit (0 = off), window (ms), oldest (ms), newest (ms); then four an action: action id, timestamp (ms), rule
-- says yes (1/0), cooldown (ms, 0 = none)
-- Returns {now (ms), since when the windows are complete (ms), then four an action: verdict, wait (ms), what this call
-- newly reserved (1 slot, 2 cooldown, 3 both), slots left (-1 = no limit)}. Verdicts: 1 admitted, 2 window full, 3 cooling down, 4 timestamp out of
-- bounds, 5 the rule says no
--
-- The window's member and the cooldown's value are the action id: a retry takes no second slot, its slot is stamped
-- anew. A slot is taken by whatever reaches the limit, even if it is then refused; a cooldown starts only with an
-- admitted action; verdicts 2 and 3 take nothing.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limit, window, oldest, newest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local since = tonumber(redis.call('GET', KEYS[1]) or 0)
if since == 0 then  -- emptied, or new: what happened before is not known here
  since = now
  redis.call('SET', KEYS[1], string.format('%d', now))
end
local answer = {now, since}
for i = 1, (#KEYS - 1) / 2 do
  local slots, cooldown, at = KEYS[2 * i], KEYS[2 * i + 1], 4 * i + 1
  local id, timestamp, allowed, pause = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2], tonumber(ARGV[at + 3])
  local verdict, wait, reserved = 1, 0, 0
  local held, left = false, -1
  if limit > 0 then
    redis.call('ZREMRANGEBYSCORE', slots, '-inf', now - window)
    held = redis.call('ZSCORE', slots, id)
    left = limit - redis.call('ZCARD', slots)
    if not held and left <= 0 then
      verdict = 2
      wait = redis.call('ZRANGE', slots, -limit, -limit, 'WITHSCORES')[2] + window - now
    end
  end
  local cooling = false
  if verdict == 1 and pause > 0 then
    cooling = redis.call('GET', cooldown)
    if cooling and cooling ~= id then
      verdict = 3
      wait = redis.call('PTTL', cooldown)
    end
  end
  if verdict == 1 then
    if limit > 0 then
      redis.call('ZADD', slots, now, id)
      redis.call('PEXPIRE', slots, window)
      if not held then reserved, left = 1, left - 1 end
    end
    if timestamp < now - oldest or timestamp > now + newest then
      verdict = 4
    elseif allowed == '0' then
      verdict = 5
    elseif pause > 0 and not cooling then
      redis.call('SET', cooldown, id, 'PX', pause)
      reserved = reserved + 2
    end
  end
  answer[#answer + 1] = verdict
  answer[#answer + 1] = wait
  answer[#answer + 1] = reserved
  answer[#answer + 1] = left
end
return answer
