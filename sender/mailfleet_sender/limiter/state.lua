-- All that is known of an account, in one moment.
-- KEYS limits, state, pods, quota, outcomes   reply: these five hashes as lists of field, value; TIME
local reply = {}
for i = 1, 5 do reply[i] = redis.call('HGETALL', KEYS[i]) end
reply[6] = redis.call('TIME')
return reply
