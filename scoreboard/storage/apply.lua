-- Applies rows of the ledger to one board, if the board still has the caller's epoch.
--
-- KEYS: totals, order, entry, meta, applied, channel
-- ARGV: epoch, board, writer, first turn, last turn, message; then five a row: user, total ('' = gone), order key (16), version (8), raw id (16)
-- Returns {0, epoch found} when the epoch differs (0: none), else {1, version, top, rank of each row's user (0: not on the board)}.
--
-- A row goes in only if its version is newer than the registered one: repetition and reordering are harmless, totals may fall.
-- No arithmetic on totals and order keys: Lua's numbers are doubles. A removed user stays registered with the highest version, so that an
-- older row that comes late can't bring the entry back.
local TOTALS, ORDER, ENTRY, META, APPLIED, CHANNEL = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local FIRST_ROW, WIDTH, SHOWN = 7, 5, 10
local REMOVED = string.rep('\255', 24)

local epoch = redis.call('HGET', META, 'epoch')
if epoch ~= ARGV[1] then return {0, tonumber(epoch or 0)} end

local function newer(version, entry)
  local a, b = struct.unpack('>I4I4', entry, 17)
  local c, d = struct.unpack('>I4I4', version)
  return c > a or (c == a and d > b)
end

local before = table.concat(redis.call('ZRANGE', ORDER, 0, SHOWN - 1))
local news = false
for i = FIRST_ROW, #ARGV, WIDTH do
  local user, total, key, version, raw = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local old = redis.call('HGET', ENTRY, raw)
  if total == '' then
    if old ~= REMOVED then
      if old then redis.call('ZREM', ORDER, string.sub(old, 1, 16) .. raw) end
      redis.call('ZREM', TOTALS, user)
      redis.call('HSET', ENTRY, raw, REMOVED)
      news = true
    end
  elseif not old or newer(version, old) then
    if old then redis.call('ZREM', ORDER, string.sub(old, 1, 16) .. raw) end
    redis.call('ZADD', ORDER, 0, key .. raw)
    redis.call('ZADD', TOTALS, total, user)
    redis.call('HSET', ENTRY, raw, key .. version)
    news = true
  end
end

-- The writer's turns are in without a gap up to `last` if nothing is missing before `first`.
local done = tonumber(redis.call('HGET', APPLIED, ARGV[3]) or 0)
if done >= tonumber(ARGV[4]) - 1 and done < tonumber(ARGV[5]) then redis.call('HSET', APPLIED, ARGV[3], ARGV[5]) end

local marks = redis.call('HMGET', META, 'version', 'top')
local version, top = tonumber(marks[1] or 0), tonumber(marks[2] or 0)
if news then
  version = version + 1
  redis.call('HSET', META, 'version', version)
  if table.concat(redis.call('ZRANGE', ORDER, 0, SHOWN - 1)) ~= before then
    top = version
    local now = redis.call('TIME')
    redis.call('HSET', META, 'top', top, 'updated', now[1] * 1000 + math.floor(now[2] / 1000))
  end
end

local answer, ranks = {1, version, top}, {}
for i = FIRST_ROW, #ARGV, WIDTH do
  local entry, raw = redis.call('HGET', ENTRY, ARGV[i + 4]), ARGV[i + 4]
  local rank = entry and redis.call('ZRANK', ORDER, string.sub(entry, 1, 16) .. raw)
  rank = rank and rank + 1 or 0
  answer[#answer + 1] = rank
  ranks[#ranks + 1] = rank
end
if news then
  redis.call('PUBLISH', CHANNEL, table.concat({'board', ARGV[2], ARGV[1], version, top, table.concat(ranks, ','), ARGV[6]}, '\n'))
end
return answer
