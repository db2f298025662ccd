-- What a board's keys say of it. KEYS: totals, order, entry, meta, applied. ARGV: installation.
-- Returns {is whole (1/0), epoch (0: none), version, run id of the server that made it, incomplete (1/0), writers and
-- their applied sequences}.
local epoch, version, _, _, _, _, incomplete = whole(KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], ARGV[1])
local found = redis.pcall('HMGET', KEYS[4], 'epoch', 'version', 'run_id')
if found.err then found = {} end
return {epoch and 1 or 0, tonumber(found[1] or 0), tonumber(found[2] or 0), found[3] or '', incomplete and 1 or 0,
  epoch and redis.call('HGETALL', KEYS[5]) or {}}
