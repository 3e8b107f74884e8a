package chassis

import (
	"fmt"
	"testing"
)

// Ports that come faster than the server takes up conditions do not keep the first of them, or nb_cfg, waiting.
func TestProgressWhileConditionsChange(t *testing.T) {
	d := newDriver(newModel())
	do := func(format string, args ...any) {
		t.Helper()
		if err := d.do(fmt.Sprintf(format, args...)); err != nil {
			t.Fatal(err)
		}
	}
	do("switch sw1")
	for i := range 100 {
		do("port p%d sw1", i)
	}
	do("settle")
	d.lag = 3
	do("nb_cfg 42")
	start := d.turn
	for i := range 60 {
		do("iface i%d iface-id=p%d", i, i)
		do("step")
		if d.inSync {
			t.Fatalf("turn %d: the server has caught up, so nothing is tested", d.turn)
		}
	}
	d.m.publish()
	if p := d.m.store.PortByName("p0"); !p.Up {
		t.Errorf("p0 is not up %d turns after its interface came", d.turn-start)
	}
	for _, p := range d.m.store.ChassisPrivates {
		if p.NBCfg != 42 {
			t.Errorf("nb_cfg is %d after %d turns, want 42", p.NBCfg, d.turn-start)
		}
	}
}
