package tc

import "fmt"

// A Verb is what an Op does.
type Verb uint8

// The verbs.
const (
	// Add installs a filter; EEXIST if there is one of its key or, in its pref, of its conditions.
	Add Verb = iota + 1

	// Replace puts a filter in the place of the one that has its key. There is no moment without either. ENOENT if there is
	// none, EINVAL if its masks are not those of its predecessor.
	Replace

	// Delete removes the filter of a key; ENOENT if there is none.
	Delete
)

// An Op is one change. Make it with AddOp, ReplaceOp or DeleteOp.
type Op struct {
	Verb   Verb
	Key    Key
	Filter *Filter // nil for Delete
}

// AddOp returns the operation that installs f.
func AddOp(f *Filter) Op { return Op{Add, f.Key(), f} }

// ReplaceOp returns the operation that puts f in the place of the filter that has its key.
func ReplaceOp(f *Filter) Op { return Op{Replace, f.Key(), f} }

// DeleteOp returns the operation that removes the filter of a key.
func DeleteOp(k Key) Op { return Op{Verb: Delete, Key: k} }

// String returns the operation as one would type it after "tc filter", but for the target.
func (o Op) String() string {
	switch o.Verb {
	case Add:
		return "add " + o.Filter.String()
	case Replace:
		return "replace " + o.Filter.String()
	case Delete:
		return "del " + o.Key.String() + " flower"
	}
	return fmt.Sprintf("verb %d", o.Verb)
}

// An OpError is why the kernel refused an operation.
type OpError struct {
	Index int // of the operation, from 0
	Op    Op
	Err   error // a syscall.Errno, or why the filter cannot be encoded
	// Message is the kernel's or the driver's own explanation (extended ack), if it gave one.
	Message string
}

// Error returns the operation and the explanation.
func (e *OpError) Error() string {
	s := fmt.Sprintf("tc filter %s: %v", e.Op, e.Err)
	if e.Message != "" {
		s += " (" + e.Message + ")"
	}
	return s
}

// Unwrap returns e.Err.
func (e *OpError) Unwrap() error { return e.Err }
