-- Puts a whole board in place under a new epoch, and tells everybody.
--
-- KEYS: totals, order, entry, meta, applied, channel; then the same five of a board built aside (absent: the live one stays and is renumbered)
-- ARGV: new epoch, board, run id of this server, epoch that the board being put in place must have
-- Returns the new version; 0 when the live board is as new already, or the other one is not there any more.
local META, CHANNEL, ASIDE_META = KEYS[4], KEYS[6], KEYS[10]
local found = redis.call('HMGET', META, 'epoch', 'version', 'names')
if tonumber(found[1] or 0) >= tonumber(ARGV[1]) then return 0 end
if redis.call('HGET', ASIDE_META or META, 'epoch') ~= ARGV[4] then return 0 end

if ASIDE_META then
  for i, live in ipairs({KEYS[1], KEYS[2], KEYS[3], false, KEYS[5]}) do
    local aside = KEYS[6 + i]
    if live then
      redis.call('UNLINK', live)
      if redis.call('EXISTS', aside) == 1 then  -- an empty board has no keys
        redis.call('RENAME', aside, live)
        redis.call('PERSIST', live)
      end
    else
      redis.call('UNLINK', aside)
    end
  end
end

local now = redis.call('TIME')
local version = tonumber(found[2] or 0) + 1
redis.call('HSET', META, 'epoch', ARGV[1], 'version', version, 'top', version, 'names', tonumber(found[3] or 0) + 1,
  'updated', now[1] * 1000 + math.floor(now[2] / 1000), 'run_id', ARGV[3])
redis.call('PUBLISH', CHANNEL, table.concat({'board', ARGV[2], ARGV[1], version, version, '', '[]'}, '\n'))
return version
