package testnic

import (
	"strings"
	"testing"
)

// A NIC of the machine is taken only with what the machine does not use, and is not changed unless that is allowed.
func TestExisting(t *testing.T) {
	if err := Unused("lo"); err == nil || !strings.Contains(err.Error(), "the machine uses it") {
		t.Errorf("Unused(lo), which has an address: %v", err)
	}
	if err := Unused("nosuch0"); err == nil {
		t.Error("Unused of a netdev that does not exist has no error")
	}
	d := Existing("pci/0000:ff:1f.7", false)
	if err := d.SetVFs(1); err == nil || !strings.Contains(err.Error(), Change) {
		t.Errorf("SetVFs of a NIC that may not be changed: %v", err)
	}
	if !d.Real() || d.Changeable() || d.Absent() != "" || d.String() != "0000:ff:1f.7" {
		t.Errorf("a NIC of the machine: %+v", d)
	}
}

// The environment says which NIC it is; without, it is the simulated one, which may be changed.
func TestNew(t *testing.T) {
	for _, v := range []string{NIC, Wire, Change} {
		t.Setenv(v, "")
	}
	if d := New(); d.Real() || !d.Changeable() || d.Handle() != "simnic/simnic0" {
		t.Errorf("New() without a NIC: %+v", d)
	}
	t.Setenv(NIC, "pci/0000:03:00.0")
	t.Setenv(Wire, "p1")
	if d := New(); !d.Real() || d.Changeable() || d.Handle() != "pci/0000:03:00.0" || d.Wire() != "p1" {
		t.Errorf("New() with %s: %+v", NIC, d)
	}
	t.Setenv(Change, "1")
	if d := New(); !d.Changeable() {
		t.Errorf("New() with %s: it may not be changed", Change)
	}
}
