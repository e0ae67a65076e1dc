-- Writes an account's limits unless Redis has them in the same or a newer version.
-- KEYS limits, quota   ARGV version, window of the quota ('': none), then pairs: field, value   reply 1: written, 0: what is there stays
local version, window = tonumber(ARGV[1]), ARGV[2]
local have = tonumber(redis.call('HGET', KEYS[1], 'version') or nil)

if have == version then -- the same limits: only the midnights may have to be told further ahead
  for i = 3, #ARGV, 2 do
    if ARGV[i] == 'quota-days' then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
  end
end
if have and have >= version then return 0 end

-- Another window counts other buckets, of which Redis may have forgotten some: the ledger is asked again.
if redis.call('HGET', KEYS[1], 'quota-window') ~= window then redis.call('DEL', KEYS[2]) end

local before = redis.call('HKEYS', KEYS[1])
for _, field in ipairs(before) do
  if string.sub(field, 1, 7) == 'domain:' then redis.call('HDEL', KEYS[1], field) end
end
redis.call('HDEL', KEYS[1], 'connections', 'domains', 'quota', 'quota-days', 'quota-window')
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'quota-window', window)
for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
