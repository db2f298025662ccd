-- Put before every script that trusts a board: whether the five keys of a board belong together. O(1).
--
-- `meta` keeps the number of users on the board (size), of users who left it (removed), and of writers in `applied`
-- (writers). A key that was lost, or a member that was taken out by hand, does not add up with these, and the whole
-- board counts as missing.
local function count(command, key)
  local answer = redis.pcall(command, key)
  return type(answer) == 'number' and answer or -1  -- an error: the key holds another type
end

-- Returns epoch, version, top, size, removed, writers of a whole board of this installation as numbers, and whether it
-- is incomplete; nil without such a board.
local function whole(totals, order, entry, meta, applied, installation)
  local found = redis.pcall('HMGET', meta,
    'epoch', 'installation', 'version', 'top', 'size', 'removed', 'writers', 'incomplete')
  if found.err or not found[1] or found[2] ~= installation then return nil end
  local size, removed, writers = tonumber(found[5] or 0), tonumber(found[6] or 0), tonumber(found[7] or 0)
  if count('ZCARD', totals) ~= size or count('ZCARD', order) ~= size or count('HLEN', entry) ~= size + removed
    or count('HLEN', applied) ~= writers then return nil end
  return tonumber(found[1]), tonumber(found[3] or 0), tonumber(found[4] or 0), size, removed, writers,
    found[8] and true or false
end

