-- Applies rows of the ledger to one board, if the board is whole and still has the caller's epoch.
--
-- KEYS: totals, order, entry, meta, applied, channel
-- ARGV: installation, epoch, board, how many rows are shown, writer, first sequence, last sequence, message;
--       then five a row: user, total ('' = not on the board), order key (16; of a user who is not on the board: the one
--       that he would have, or ''), version (8), raw id (16)
-- Returns {0, epoch found} when there is no such board (0: none at all), else
--   {1, version, top, the writer's applied sequence, incomplete (1/0), rank of each row's user (0: not on the board
--   and without an order key that he would have)}.
--
-- A row goes in only if its version is newer than the registered one: repetition and reordering are harmless, totals
-- may fall. No arithmetic on totals and order keys: Lua's numbers are doubles. A user who left stays registered with
-- the version of the removal, so that an older row that comes late can't bring the entry back, and a newer one can.
local TOTALS, ORDER, ENTRY, META, APPLIED, CHANNEL = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local FIRST_ROW, WIDTH = 9, 5
local REMOVED = string.rep('\255', 16)  -- in place of an order key
local ENTRY_BYTES = 24  -- order key and version; an order key that the user would have follows them

local epoch, version, top, size, removed, writers, incomplete = whole(TOTALS, ORDER, ENTRY, META, APPLIED, ARGV[1])
if epoch ~= tonumber(ARGV[2]) then return {0, epoch or 0} end
local last_shown = tonumber(ARGV[4]) - 1

local function newer(version, entry)
  local a, b = struct.unpack('>I4I4', entry, 17)
  local c, d = struct.unpack('>I4I4', version)
  return c > a or (c == a and d > b)
end

local before = table.concat(redis.call('ZRANGE', ORDER, 0, last_shown))
local news = false
local members = {}
local hidden = {}  -- place of a row → member that its user would have
for i = FIRST_ROW, #ARGV, WIDTH do
  local user, total, key, version, raw = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local old = redis.call('HGET', ENTRY, raw)
  local old_key = old and string.sub(old, 1, 16)
  if old and not newer(version, old) then
    members[#members + 1] = old_key .. raw
    if old_key == REMOVED and #old > ENTRY_BYTES then hidden[#members] = string.sub(old, ENTRY_BYTES + 1) .. raw end
  else
    news = true
    local own_key = ''
    if total == '' then own_key, key = key, REMOVED end
    if old_key and old_key ~= REMOVED then
      redis.call('ZREM', ORDER, old_key .. raw)
      size = size - 1
    elseif old_key then
      removed = removed - 1
    end
    if total == '' then
      redis.call('ZREM', TOTALS, user)
      removed = removed + 1
    else
      redis.call('ZADD', ORDER, 0, key .. raw)
      redis.call('ZADD', TOTALS, total, user)
      size = size + 1
    end
    redis.call('HSET', ENTRY, raw, key .. version .. own_key)
    members[#members + 1] = key .. raw
    if own_key ~= '' then hidden[#members] = own_key .. raw end
  end
end

-- The writer's sequences are in without a gap up to `last` if nothing is missing before `first`.
local done = tonumber(redis.call('HGET', APPLIED, ARGV[5]) or 0)
if done >= tonumber(ARGV[6]) - 1 and done < tonumber(ARGV[7]) then
  writers = writers + redis.call('HSET', APPLIED, ARGV[5], ARGV[7])
  done = tonumber(ARGV[7])
end

if news then
  version = version + 1
  if table.concat(redis.call('ZRANGE', ORDER, 0, last_shown)) ~= before then
    top = version
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    redis.call('HSET', META, 'version', version, 'size', size, 'removed', removed, 'writers', writers,
      'top', top, 'top_at', now, 'updated', now)
  else
    redis.call('HSET', META, 'version', version, 'size', size, 'removed', removed, 'writers', writers)
  end
else
  redis.call('HSET', META, 'writers', writers)
end

local answer, ranks = {1, version, top, done, incomplete and 1 or 0}, {}
for i, member in ipairs(members) do
  local rank = redis.call('ZRANK', ORDER, member)
  rank = rank and rank + 1 or hidden[i] and redis.call('ZLEXCOUNT', ORDER, '-', '(' .. hidden[i]) + 1 or 0
  answer[#answer + 1] = rank
  ranks[#ranks + 1] = incomplete and 0 or rank
end
if news or ARGV[8] ~= '[]' then
  local message = {'board', ARGV[1], ARGV[3], ARGV[2], version, top, table.concat(ranks, ','), ARGV[8]}
  redis.call('PUBLISH', CHANNEL, table.concat(message, '\n'))
end
return answer
