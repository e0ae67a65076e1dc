-- For good: what is in flight is accounted for, the rest counts as cancelled.
obj.spec.cancel = true
return obj
