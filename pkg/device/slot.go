package device

import (
	"strconv"
	"strings"

	"github.com/offloadd/offloadd/pkg/reason"
)

// slotInfix is between the name of a pool and a number. No name of a pool or of a device in sysfs has it.
const slotInfix = ".slot."

// Slot names the nth, from 0, of the functions that a pool of SFs can have at most. It stands for any function of the pool: a Request may
// have it as its Device. Those who hand out functions before they exist, as kubelet does, count slots.
func (p Pool) Slot(n int) string { return p.Name + slotInfix + strconv.Itoa(n) }

// SlotPool returns the pool of a slot; false if device is none.
func SlotPool(device string) (pool string, ok bool) {
	pool, n, ok := strings.Cut(device, slotInfix)
	if _, err := strconv.ParseUint(n, 10, 16); !ok || err != nil || !isName(pool) {
		return "", false
	}
	return pool, true
}

// unslotted is a request without a slot: for any function of the slot's pool instead.
func (r Request) unslotted() (Request, error) {
	pool, ok := SlotPool(r.Device)
	switch {
	case !ok:
		return r, nil
	case r.Pool != "" && r.Pool != pool:
		return r, reason.Errorf(reason.DeviceNotFound, "device acquire for %s: %s is a slot of another pool than %s", r.Owner, r.Device, r.Pool)
	}
	r.Pool, r.Device = pool, ""
	return r, nil
}
