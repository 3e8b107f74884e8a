package ports

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/reason"
)

var sameValues = cmp.Options{cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}), cmpopts.EquateEmpty()}

func testRecord(i int, p phase) record {
	spec, err := Spec{
		Key:   Key{"net", fmt.Sprintf("c%d", i), "eth0"},
		Netns: "/run/netns/x", LogicalPort: fmt.Sprintf("lp%d", i), MAC: MAC{2, 0, 0, 0, 0, byte(i)},
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("fd00::1/64")},
		Gateways:  []netip.Addr{netip.MustParseAddr("10.0.0.254")},
		Routes:    []Route{{Destination: netip.MustParsePrefix("10.1.0.0/16")}},
		Labels:    map[string]string{"pod": "a\nb"},
	}.Validate()
	if err != nil {
		panic(err)
	}
	return record{p, "8c2b0b0e-2b5f-4d0c-9d83-6f1f0c8c3b11", netnsID{4, uint64(i)}, Port{
		Spec: spec, Kind: Veth, State: Ready, MAC: spec.MAC, Addresses: spec.Addresses, HostInterface: spec.Key.hostName(),
		Created: time.Unix(1700000000, 5).UTC(), Timeline: []Step{{"journal", time.Unix(1700000000, 5).UTC(), 7}},
	}}
}

// functionRecord is that of a port made of a VF, with everything that such a record can have.
func functionRecord(i int, p phase) record {
	r := testRecord(i, p)
	no := false
	r.Port.Spec.Kind, r.Port.Spec.Fallback, r.Port.Spec.Pool, r.Port.Spec.Device = VF, []Kind{SF}, "fast", "0000:03:00.2"
	r.Port.Spec.Attributes = Attributes{VLAN: 7, QoS: 3, VLANProto: VLAN8021AD, Trust: &no, LinkState: LinkEnable, MinRate: 1e6, MaxRate: 1e9}
	r.Port.Kind, r.Port.FellBack, r.Port.HostInterface = SF, "there is no vf to be had", "pf0sf7"
	r.Port.Function = &device.Function{
		Handle: devlink.Handle{Bus: "pci", Dev: "0000:03:00.0"}.Port(32768), Kind: device.SF, Number: 7, Pool: "fast",
		Bus: "auxiliary", Device: "mlx5_core.sf.4", Representor: device.Link{Name: "pf0sf7", Index: 12}, Netdev: device.Link{Name: "enp3s0f0s7", Index: 13},
		NUMA: -1, Generation: 41,
		Before: device.Before{HWAddr: &device.MAC{}, MAC: device.MAC{2, 0, 0, 0, 0, 9}, MTU: 1500, RepresentorMTU: 1500, Rate: &device.Rate{}},
	}
	return r
}

// open reads and writes the journal anew, as a daemon that starts.
func open(t *testing.T, dir string) (*journal, map[Key]record, []flaw) {
	t.Helper()
	j, records, flaws, err := openJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.close)
	return j, records, flaws
}

// What is read is what was last written of each port, whatever the order, and however often the daemon starts.
func TestJournalKeepsTheLast(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		dir := t.TempDir()
		want := map[Key]record{}
		j, _, _ := open(t, dir)
		for range 60 {
			r := []func(int, phase) record{testRecord, functionRecord}[rnd.IntN(2)](rnd.IntN(5), []phase{intended, made, removing, gone}[rnd.IntN(4)])
			if err := j.write(r, rnd.IntN(4) == 0); err != nil {
				t.Fatal(err)
			}
			if want[r.Port.Spec.Key] = r; r.Phase == gone {
				delete(want, r.Port.Spec.Key)
			}
			if rnd.IntN(10) > 0 {
				continue
			}
			j.close()
			var got map[Key]record
			var flaws []flaw
			j, got, flaws = open(t, dir)
			if d := cmp.Diff(want, got, sameValues); d != "" || len(flaws) > 0 {
				t.Fatalf("seed %d: flaws %v, records (-want +got):\n%s", seed, flaws, d)
			}
		}
	}
}

// A journal that ends anywhere is that of a daemon that was killed in the middle of writing: each line that is whole counts.
func TestJournalCutAnywhere(t *testing.T) {
	text := []byte(journalFormat)
	var ends []int
	for i := range 3 {
		line, err := testRecord(i, made).line()
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, line...)
		ends = append(ends, len(text))
	}
	for cut := range len(text) + 1 {
		whole := 0
		for _, end := range ends {
			if end <= cut {
				whole++
			}
		}
		records, flaws := parseJournal(text[:cut])
		if len(records) != whole || len(flaws) > 0 {
			t.Fatalf("cut at %d of %d: %d records and flaws %v, want %d and none", cut, len(text), len(records), flaws, whole)
		}
	}
}

// A byte that has changed costs at most the line it is in, or two if it was the end of one, and is reported.
func TestJournalCorruptAnywhere(t *testing.T) {
	text := []byte(journalFormat)
	lines := 4
	for i := range lines {
		line, err := testRecord(i, made).line()
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, line...)
	}
	for at := range text {
		for _, flip := range []byte{1, 0x80, text[at] ^ '\n'} {
			if flip == 0 {
				continue
			}
			bad := bytes.Clone(text)
			bad[at] ^= flip
			records, flaws := parseJournal(bad)
			want := lines - 1
			switch {
			case at == len(text)-1 && text[at] == '\n': // an unfinished last line
				if len(records) != want {
					t.Fatalf("byte %d ^ %#x: %d records, want %d", at, flip, len(records), want)
				}
				continue
			case at < len(journalFormat)-1:
				want = lines
			case at == len(journalFormat)-1: // the format and the first record have become one line
			case text[at] == '\n':
				want--
			}
			if len(records) != want || len(flaws) == 0 {
				t.Fatalf("byte %d ^ %#x: %d records and flaws %v, want %d and some", at, flip, len(records), flaws, want)
			}
		}
	}
}

// The damaged file is kept, the records that are whole go on.
func TestJournalDamaged(t *testing.T) {
	dir := t.TempDir()
	j, _, _ := open(t, dir)
	for i := range 3 {
		if err := j.write(testRecord(i, made), true); err != nil {
			t.Fatal(err)
		}
	}
	j.close()
	path := filepath.Join(dir, journalName)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Replace(text, []byte(`"c1"`), []byte(`"c9"`), 1)
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	j, records, flaws := open(t, dir)
	if len(records) != 2 || len(flaws) != 1 {
		t.Errorf("%d records, flaws %v", len(records), flaws)
	}
	kept, err := os.ReadFile(filepath.Join(dir, corruptName))
	if err != nil || !bytes.Equal(kept, bad) {
		t.Errorf("the damaged file was not kept: %v", err)
	}
	j.close()
	if _, records, flaws = open(t, dir); len(records) != 2 || len(flaws) > 0 {
		t.Errorf("afterwards: %d records, flaws %v", len(records), flaws)
	}
}

// Many write at the same time, and the file does not grow without end.
func TestJournalConcurrentAndCompact(t *testing.T) {
	dir := t.TempDir()
	j, _, _ := open(t, dir)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 400 {
				r := testRecord(i, intended)
				if n%2 == 1 {
					r.Phase = made
				}
				if err := j.write(r, n%100 == 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if at, err := os.Stat(filepath.Join(dir, journalName)); err != nil || at.Size() > minCompact+maxRecord {
		t.Errorf("size %v, %v", at.Size(), err)
	}
	j.close()
	_, records, flaws := open(t, dir)
	for k, r := range records {
		if r.Phase != made {
			t.Errorf("%s: %s, want %s", k, r.Phase, made)
		}
	}
	if len(records) != 8 || len(flaws) > 0 {
		t.Errorf("%d records, flaws %v", len(records), flaws)
	}
}

// A write that fails is an error, and does no harm to what comes later.
func TestJournalWriteFails(t *testing.T) {
	dir := t.TempDir()
	j, _, _ := open(t, dir)
	if err := j.write(testRecord(1, made), true); err != nil {
		t.Fatal(err)
	}
	real := j.file
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	j.file = full
	if err := j.write(testRecord(2, made), true); reason.Of(err) != reason.JournalFailed {
		t.Errorf("on a full disk: %v", err)
	}
	_ = real.Close()
	if err := j.write(testRecord(3, made), true); err != nil {
		t.Errorf("when there is space again: %v", err)
	}
	j.close()
	_, records, flaws := open(t, dir)
	var names []string
	for k := range records {
		names = append(names, k.ContainerID)
	}
	if d := cmp.Diff([]string{"c1", "c3"}, names, cmpopts.SortSlices(func(a, b string) bool { return a < b })); d != "" || len(flaws) > 0 {
		t.Errorf("flaws %v, records (-want +got):\n%s", flaws, d)
	}
}

func TestJournalHasOneOwner(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, _, _, err := openJournal(dir); reason.Of(err) != reason.JournalFailed {
		t.Errorf("a second one: %v", err)
	}
}

// A record from before there were other kinds is that of a veth.
func TestJournalOfOldRelease(t *testing.T) {
	const text = `{"phase":"made","netns":{"device":4,"inode":1},"port":{"Spec":{"Key":{"Network":"net","ContainerID":"c1","Ifname":"eth0"},` +
		`"Netns":"/run/netns/x","Kind":"veth","LogicalPort":"lp1","IfaceIDVer":"","Addressing":"static","MAC":"02:00:00:00:00:01",` +
		`"Addresses":null,"Gateways":null,"Routes":null,"MTU":1442,"Labels":null},"State":"READY","Reason":"","Message":"",` +
		`"HostInterface":"off0123456789ab","MAC":"02:00:00:00:00:01","Addresses":null,"Gateways":null,"Routes":null,"MTU":1442,` +
		`"OFPort":7,"Zone":9,"Created":"2023-11-14T22:13:20Z","Timeline":null,"Revision":0}}`
	line := fmt.Sprintf("%08x %s\n", crc32.Checksum([]byte(text), castagnoli), text)
	records, flaws := parseJournal([]byte(journalFormat + line))
	r := records[Key{"net", "c1", "eth0"}]
	if len(flaws) > 0 || r.Phase != made || r.Boot != "" || r.Port.Kind != Veth || r.Port.Function != nil || r.Port.OFPort != 7 {
		t.Errorf("flaws %v, record %+v", flaws, r)
	}
}

func FuzzJournal(f *testing.F) {
	line, err := testRecord(1, made).line()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append([]byte(journalFormat), line...))
	if line, err = functionRecord(2, made).line(); err != nil {
		f.Fatal(err)
	}
	f.Add(append([]byte(journalFormat), line...))
	f.Fuzz(func(t *testing.T, text []byte) {
		records, _ := parseJournal(text)
		for k, r := range records {
			line, err := r.line()
			if err != nil {
				t.Fatalf("%s: %v", k, err)
			}
			again, err := parseLine(bytes.TrimSuffix(line, []byte("\n")))
			if err != nil {
				t.Fatalf("%s: %v", k, err)
			}
			if d := cmp.Diff(r, again, sameValues); d != "" {
				t.Fatalf("%s (-first +again):\n%s", k, d)
			}
		}
	})
}
