-- Puts a whole board in place under a new epoch, marked incomplete until `complete.lua` says that nothing is missing,
-- and tells everybody.
--
-- KEYS: totals, order, entry, meta, applied, channel; then the same five of a board under staging keys (absent: the
-- live one stays and is renumbered)
-- ARGV: installation, new epoch, board, run id of this server, epoch that the board being put in place must have
-- Returns the new version; 0 when the live board is as new already, or the other one is not whole any more. So whoever
-- was stopped while building, and wakes up later, changes nothing.
local META, CHANNEL, STAGING_META = KEYS[4], KEYS[6], KEYS[10]
local found = redis.pcall('HMGET', META, 'epoch', 'version', 'names', 'updated', 'installation')
if found.err then found = {} end
if tonumber(found[1] or 0) >= tonumber(ARGV[2]) then return 0 end
local at = STAGING_META and 6 or 0
local whole_epoch = whole(KEYS[at + 1], KEYS[at + 2], KEYS[at + 3], KEYS[at + 4], KEYS[at + 5], ARGV[1])
if whole_epoch ~= tonumber(ARGV[5]) then return 0 end

if STAGING_META then
  for i = 1, 5 do
    redis.call('UNLINK', KEYS[i])
    if redis.call('EXISTS', KEYS[6 + i]) == 1 then  -- an empty board has no order
      redis.call('RENAME', KEYS[6 + i], KEYS[i])
      redis.call('PERSIST', KEYS[i])
    end
  end
end

-- No row changes by being put in place: `updated` stays, unless it is of another installation's board. A board that
-- never had one begins now.
local updated = found[5] == ARGV[1] and tonumber(found[4] or 0) or 0
if STAGING_META then updated = math.max(updated, tonumber(redis.call('HGET', META, 'updated') or 0)) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local version = tonumber(found[2] or 0) + 1
redis.call('HSET', META, 'epoch', ARGV[2], 'version', version, 'top', version, 'names', tonumber(found[3] or 0) + 1,
  'top_at', now, 'updated', updated > 0 and updated or now, 'run_id', ARGV[4], 'incomplete', 1)
redis.call('PUBLISH', CHANNEL, table.concat({'board', ARGV[1], ARGV[3], ARGV[2], version, version, '', '[]'}, '\n'))
return version
