-- false and not nil: what Git does not state is not compared, and a plain value shows who did it.
obj.spec.suspend = false
return obj
