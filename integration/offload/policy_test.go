package offload

import (
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
)

// tight makes db refuse web what policy lets pass, loose undoes that.
const (
	tight = "acl-add " + closing + " drop"
	loose = "acl-del " + closing

	closing = `pg_db to-lport 1002 'outport == @pg_db && (ip4.src == $pg_web_ip4 || ip6.src == $pg_web_ip6) && (udp.dst == 5353 || tcp.dst == 5432)'`
)

// soon is how long after the acknowledgement of a change packets may still be treated as before: those on their way.
const soon = 100 * time.Millisecond

// A policy that is made tighter, or looser, is in force for established connections when it is acknowledged: no packet of a connection
// that lost its permission arrives later, none is lost that has it again, and none at any time of those that the change is not about.
func TestPolicyChange(t *testing.T) {
	r := rig(t)
	warm(t, r)
	pin(t, r)
	for _, v6 := range []bool{false, true} {
		t.Run(family(v6), func(t *testing.T) {
			var all, revoked, kept []stream
			for _, s := range streams(v6) {
				all = append(all, s)
				if s.Routed { // from web to db
					revoked = append(revoked, s)
				} else {
					kept = append(kept, s)
				}
			}
			l := startLoad(t, r, all)
			wantOffloaded(t, r, Paths())

			begin := time.Now()
			_, err := r.NB(t.Context(), "--wait=hv "+tight)
			check(t, err)
			tightened := time.Now()
			time.Sleep(lab.Patient(300 * time.Millisecond))
			loosening := time.Now()
			_, err = r.NB(t.Context(), "--wait=hv "+loose)
			check(t, err)
			loosened := time.Now()
			for _, s := range revoked {
				waitFor(t, s.String()+" to be answered again", func() bool { return l.last(s, true, loosened) != nil })
			}
			wantOffloaded(t, r, Paths())
			l.stop(t)

			t.Logf("acknowledged after %v, and %v", tightened.Sub(begin).Round(time.Millisecond), loosened.Sub(loosening).Round(time.Millisecond))
			l.wantAll(t, kept, begin)
			for _, s := range revoked {
				var last, first time.Time // before the change was undone, and after
				late := 0
				l.sightings(s.To, s.flow(r, false), false, func(p *sighting) {
					switch {
					case p.at.Before(loosening):
						last = p.at
						if p.at.After(tightened.Add(soon)) {
							late++
						}
					case first.IsZero():
						first = p.at
					}
				})
				// A connection that was blocked is one again when its client sends: until then answers, of TCP that tries again, are dropped.
				l.wantAllOf(t, s, false, loosened.Add(soon))
				l.wantAllOf(t, s, true, later(first, loosened).Add(soon))
				t.Logf("%v: the last packet arrived %v after the acknowledgement, and the first one again %v after that of the opposite", s,
					last.Sub(tightened).Round(time.Millisecond), first.Sub(loosened).Round(time.Millisecond))
				if late > 0 {
					t.Errorf("%v: %d packets arrived more than %v after the policy was tightened, the last at %s", s, late, soon, clock(last))
				}
			}
		})
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
