package compile

import "github.com/offloadd/offloadd/pkg/ir"

// OpenFlow tables, as OVN 23.03 numbers them (controller/lflow.h). They are private to the chassis.
const (
	TablePhyToLog        = 0
	TableIngress         = 8 // first table of the logical ingress pipeline
	TableLargePktDetect  = 37
	TableLargePktProcess = 38
	TableRemoteOutput    = 39
	TableLocalOutput     = 40
	TableCheckLoopback   = 41
	TableEgress          = 42 // first table of the logical egress pipeline
	TableSaveInport      = 64
	TableLogToPhy        = 65
	TableMACBinding      = 66
	TableMACLookup       = 67
	TableLBHairpin       = 68
	TableLBHairpinReply  = 69
	TableCTSNATHairpin   = 70
	TableGetFDB          = 71
	TableLookupFDB       = 72
	TableInPortSec       = 73
	TableInPortSecND     = 74
	TableOutPortSec      = 75
	TableECMPNextHopMAC  = 76
	TableECMPNextHop     = 77
	TableLBAffinity      = 78
	TableMACCacheUse     = 79 // since 23.09
	ingressTables        = TableLargePktDetect - TableIngress
	egressTables         = TableSaveInport - TableEgress
	TableOutputInit      = TableLargePktDetect
)

// Registers that hold logical state, as OVN allocates them (include/ovn/logical-fields.h).
const (
	regFlags    = ir.Reg10
	regDNATZone = ir.Reg11
	regSNATZone = ir.Reg12
	regCTZone   = ir.Reg13
	regInport   = ir.Reg14
	regOutport  = ir.Reg15
)

// Bits of regFlags (enum mff_log_flags_bits).
const (
	flagAllowLoopback   = 0
	flagRcvFromRamp     = 1
	flagLocalOnly       = 4
	flagNestedContainer = 5
	flagLookupMAC       = 6
	flagLookupHairpin   = 7
	flagLookupFDB       = 8
	flagLocalport       = 10
	flagCheckPortSec    = 12
	flagLookupECMPNH    = 13
	flagUseLBAffinity   = 14
)

// logRegs is the number of registers that logical flows use: reg0..reg9.
const logRegs = 10

// LearnedTables returns the tables whose flows the switch itself adds, by learn actions.
func LearnedTables() []uint8 {
	return []uint8{TableLBHairpinReply, TableECMPNextHopMAC, TableECMPNextHop, TableLBAffinity}
}
