package device

import (
	"testing"

	"github.com/offloadd/offloadd/pkg/reason"
)

func TestSlots(t *testing.T) {
	p := Pool{Name: "fast-2"}
	for _, n := range []int{0, 7, maxSFs - 1} {
		if pool, ok := SlotPool(p.Slot(n)); pool != "fast-2" || !ok {
			t.Errorf("SlotPool(%q) = %q, %v", p.Slot(n), pool, ok)
		}
	}
	for _, device := range []string{"", "0000:03:00.2", "mlx5_core.sf.4", "fast.slot.", "fast.slot.x", ".slot.1", "fast.slot.1.slot.2", "fast_core.slot.1", "fast.slot.-1"} {
		if pool, ok := SlotPool(device); ok {
			t.Errorf("%q is a slot of %q", device, pool)
		}
	}
	for _, tt := range []struct {
		request, want Request
		reason        reason.Reason
	}{
		{Request{Device: "fast.slot.3"}, Request{Pool: "fast"}, ""},
		{Request{Device: "fast.slot.3", Pool: "fast"}, Request{Pool: "fast"}, ""},
		{Request{Device: "fast.slot.3", Pool: "slow"}, Request{Device: "fast.slot.3", Pool: "slow"}, reason.DeviceNotFound},
		{Request{Device: "mlx5_core.sf.4", Pool: "fast"}, Request{Device: "mlx5_core.sf.4", Pool: "fast"}, ""},
	} {
		got, err := tt.request.unslotted()
		if got.Pool != tt.want.Pool || got.Device != tt.want.Device || reason.Of(err) != tt.reason {
			t.Errorf("%+v becomes %+v, %v", tt.request, got, err)
		}
	}
}
