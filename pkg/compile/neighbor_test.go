package compile

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/internal/golden"
	"github.com/offloadd/offloadd/pkg/sb"
)

// The rules are those of ovn-controller, byte for byte as ovs-ofctl prints them.
func TestNeighborRules(t *testing.T) {
	golden.Run(t, "testdata/neighbor.txt", func(in string) string {
		var s sink
		if err := addNeighborRow(&s, in); err != nil {
			return formatGolden([]error{err}, nil)
		}
		return formatGolden(nil, s.rules)
	})
}

// addNeighborRow adds the rules of a row in the notation of the golden file: the table, then the quoted columns.
func addNeighborRow(s *sink, line string) error {
	router, switch0 := &sb.Datapath{Key: 2}, &sb.Datapath{Key: 1}
	line, aging := strings.CutPrefix(line, "aging ")
	if aging {
		router.MACBindingAge = 300
	}
	port := &sb.Port{Name: "lr0-sw0", Key: 1}
	table, columns, _ := strings.Cut(line, " ")
	d := json.NewDecoder(strings.NewReader(columns))
	var first, second string
	if err := d.Decode(&first); err != nil {
		return err
	}
	rest := strings.TrimSpace(columns[d.InputOffset():])
	if table == "FDB" {
		key, err := strconv.ParseUint(rest, 10, 32)
		if err != nil {
			return err
		}
		return fdbEntry(s, switch0, &sb.FDB{UUID: goldenRow, MAC: first, DatapathKey: 1, PortKey: uint32(key)})
	}
	if err := d.Decode(&second); err != nil {
		return err
	}
	switch table {
	case "MAC_Binding":
		return macBinding(s, router, port, &sb.MACBinding{UUID: goldenRow, IP: first, MAC: second})
	case "Static_MAC_Binding":
		override := strings.HasSuffix(columns, " override")
		return staticMACBinding(s, router, port, &sb.StaticMACBinding{UUID: goldenRow, IP: first, MAC: second, Override: override})
	default:
		return fmt.Errorf("unknown table %s", table)
	}
}

// ovn-controller knows it from 23.09 on (encode_MAC_CACHE_USE in lib/actions.c), so it is not in the golden file that is compared with 23.03.
func TestEncodeMACCacheUse(t *testing.T) {
	const want = "resubmit(,79),resubmit(,19)"
	if got := encodeText(oracleFlow{dp: "rt", table: 10, match: "1", actions: "mac_cache_use; next;"}); got != want {
		t.Errorf("mac_cache_use; next; is %s, want %s", got, want)
	}
}
