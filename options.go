package kvstore

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"math/bits"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"example.com/kvstore/lsm"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/transport"
)

// Limits of the options, refused by Open when broken.
const (
	MaxPartitions = 1 << 16
	MaxReplicas   = 16
	// hardKeyBytes and hardValueBytes are what the formats can say.
	hardKeyBytes   = 1<<16 - 1
	hardValueBytes = 8 << 20
	// hardRecordBytes bounds all siblings of a key together.
	hardRecordBytes = 2 * hardValueBytes
)

// A SyncPolicy says when a write is acknowledged: see lsm.SyncPolicy.
type SyncPolicy = lsm.SyncPolicy

// SyncAlways acknowledges a write when it is on disk (group commit). The
// default.
var SyncAlways = lsm.SyncAlways

// SyncNever acknowledges a write when it is in the log's buffer and leaves the
// rest to the operating system. See SyncEvery for what a node may lose with it.
var SyncNever = lsm.SyncNever

// SyncEvery acknowledges a write when it is in the log's buffer and syncs the
// log every d. With d of zero or less it is SyncAlways.
//
// A member that ends without Close may then lack what it has acknowledged last. It
// answers no reads when it starts again, until the other owners have brought it that:
// N−W+1 of them, W being the majority, that lost nothing. Writes are lost when all
// that had them end so before they sync; when no owner is whole, as after a power cut
// at all of them, they serve what they have left together once all of them are there,
// and EventListener.Healed is told.
func SyncEvery(d time.Duration) SyncPolicy { return lsm.SyncEvery(d) }

// Options are the settings of a node. The zero value of every field is its
// default, and Open works with nil. Open copies the struct and never writes to
// it.
type Options struct {
	// NodeID names this node in the cluster; default: 16 random hexadecimal
	// digits, kept in the directory. It can't change later. An empty directory with the
	// name of a member that is dead takes its place.
	NodeID string
	// Cluster is the cluster's name. Nodes with different names refuse each
	// other. Default "kvstore".
	Cluster string
	// Listen is the address to take peers' connections on, "host:port"; port 0
	// picks one. Default none: a single node that nobody can reach. An address
	// that is not loopback needs ClusterKey or TLS; one that stands for all of
	// the machine's needs Advertise.
	Listen string
	// Advertise is the address that peers are told to use; default: the
	// address listened on.
	Advertise string
	// Zone and DataCenter place the node; replicas go to distinct ones first.
	// Zones of unequal size load their nodes unequally. The levels LocalOne,
	// LocalQuorum and EachQuorum are about data centres; N counts the replicas in
	// all of them together.
	Zone, DataCenter string
	// Seeds are nodes to join through: "host:port", "dns://name:port" or
	// "srv://name". They are retried for ever; the own address is ignored. Nodes
	// can join until the first write is accepted: start all of them before.
	Seeds []string
	// Bootstrap forms a new cluster even though there are Seeds. Without it a
	// node with Seeds waits for one of them, so that nodes started together
	// never become several clusters. A node without Seeds is its own first
	// member.
	Bootstrap bool
	// N is the number of replicas of a key, at most 16; default 3, capped by
	// the number of nodes. Only the node that bootstraps sets it; Open refuses
	// another one for a member.
	N int
	// SloppyQuorum allows Sloppy writes, which count hints. It is set as N is. Tombstones
	// are then forgotten only while all members are up, not only a key's owners.
	SloppyQuorum bool
	// Read and Write are the levels of calls that name none; default Quorum.
	Read, Write Consistency
	// Conflicts says what becomes of values written concurrently: LastWriterWins
	// (the default), KeepSiblings or MergeFunc(fn). All nodes should have the same.
	Conflicts Resolver
	// Partitions is Q, a power of two up to 65536; default 4096. It is set as N is.
	// More give a finer balance, and cost about 5
	// bytes each in every epoch.
	Partitions int
	// Weight is this node's share of the data relative to the others'; default
	// 1. Proxy makes a member that owns nothing and only coordinates.
	Weight float64
	Proxy  bool
	// Sync says when a write is durable on one node; default SyncAlways.
	Sync SyncPolicy
	// MemoryBytes is the budget for this node's memtables, record cache, log
	// buffers, indexes and filters of tables, and send queues together; default a
	// quarter of the memory limit (GOMEMLIMIT), at most 1 GiB, which is also the
	// default where there is no limit; at least 1 MiB. The larger it is the fewer
	// reads go to tables; without about 2 bytes for each key reads are slow.
	// lsm.Options says how it is divided. A peer that is slow to take what is sent
	// may hold a 64th more, at least 16 MiB, and below 64 MiB the process itself
	// takes more than is left. It sets the size of log segments
	// and of the reserve for a full volume as well: an empty node takes about 200 MB of
	// disk with 1 GiB, 13 MB with 64 MiB and 4 MB with 16 MiB.
	MemoryBytes int64
	// HintBytes bounds what this node keeps on disk, for each other node, of
	// writes that it missed; default 64 MiB. What is above is found by comparing
	// replicas when the node is back, which takes longer.
	HintBytes int64
	// ColdDir is a second directory, on a volume that may be larger and slower, for tables
	// whose newest record is older than ColdAfter (default 7 days), and which are seldom
	// merged. Reads of them take as long as that volume does. A node that has used it
	// needs it at every start; several nodes may share one. Default none.
	ColdDir   string
	ColdAfter time.Duration
	// MaxKeyBytes (default 4 KiB, at most 65,535) and MaxValueBytes (default
	// 1 MiB, at most 8 MiB) bound what Put takes.
	MaxKeyBytes, MaxValueBytes int
	// MaxClockOffset is how far ahead of the own clock a peer's stamp may be
	// before it is refused; default 500 ms. All nodes need the same.
	MaxClockOffset time.Duration
	// MaxRequest caps the duration of every request; default 10 s. A context's
	// deadline shortens it. All nodes need the same: what comes to an owner later
	// than that may be refused, since deletes as old are being forgotten.
	MaxRequest time.Duration
	// GossipInterval is the time between rounds of gossip; default 1 s. Shorter
	// finds failures sooner and costs traffic in proportion.
	GossipInterval time.Duration
	// SuspectAfter is how long a silent member is suspected before it counts as
	// dead; default 5 s.
	SuspectAfter time.Duration
	// ClusterKey is a secret that all nodes share, at least 16 bytes; it
	// authenticates connections and does not encrypt them. TLS does both; it
	// must be set up for both roles (Certificates, RootCAs, ClientCAs).
	ClusterKey []byte
	TLS        *tls.Config
	// Logger gets what an operator should know; nil is silent. Values are
	// never logged.
	Logger *slog.Logger
	// Events are called as things happen; see EventListener.
	Events *EventListener

	// Parts to plug in, for tests and special homes.

	// FS holds the data; default the operating system's, or one in memory when
	// Open's dir is "".
	FS vfs.FS
	// Transport carries messages between nodes; default TCP. Listen, Advertise
	// and Seeds are then addresses in its words.
	Transport transport.Transport
	// Clock gives the wall time for stamps and deadlines; default the system's.
	Clock func() time.Time
	// Seed makes the node's random choices repeatable; 0 draws one.
	Seed uint64
}

// withDefaults returns a copy with every default filled in.
func (o *Options) withDefaults(dir string) Options {
	var e Options
	if o != nil {
		e = *o
	}
	setDefault(&e.Cluster, "kvstore")
	setDefault(&e.N, 3)
	setDefault(&e.Read, Quorum)
	setDefault(&e.Write, Quorum)
	setDefault(&e.Partitions, 4096)
	setDefault(&e.Weight, 1)
	if e.Proxy {
		e.Weight = 0
	}
	setDefault(&e.MemoryBytes, defaultMemory())
	setDefault(&e.HintBytes, 64<<20)
	if e.ColdDir != "" {
		setDefault(&e.ColdAfter, 7*24*time.Hour)
	}
	setDefault(&e.MaxKeyBytes, 4<<10)
	setDefault(&e.MaxValueBytes, 1<<20)
	setDefault(&e.MaxClockOffset, 500*time.Millisecond)
	setDefault(&e.MaxRequest, 10*time.Second)
	setDefault(&e.GossipInterval, time.Second)
	setDefault(&e.SuspectAfter, 5*time.Second)
	setDefault(&e.Logger, slog.New(slog.DiscardHandler))
	setDefault(&e.Events, &EventListener{})
	if e.FS == nil {
		if dir == "" {
			e.FS = vfs.NewMem(1)
		} else {
			e.FS = vfs.OS
		}
	}
	if e.Clock == nil {
		e.Clock = wallClock
	}
	e.Seeds = append([]string(nil), e.Seeds...)
	return e
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// defaultMemory is a quarter of the memory limit, at most 1 GiB.
func defaultMemory() int64 { return min(debug.SetMemoryLimit(-1)/4, 1<<30) }

// validate refuses settings that cannot work, with what to change.
func (o *Options) validate() error {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("%w: Options.%s", ErrInvalid, fmt.Sprintf(format, a...))
	}
	switch {
	case o.N < 1 || o.N > MaxReplicas:
		return bad("N is %d; use 1 to %d replicas", o.N, MaxReplicas)
	case o.Partitions < 1 || o.Partitions > MaxPartitions || bits.OnesCount(uint(o.Partitions)) != 1:
		return bad("Partitions is %d; use a power of two up to %d", o.Partitions, MaxPartitions)
	case !(o.Weight >= 0 && o.Weight <= 1000):
		return bad("Weight is %v; use 0 to 1000", o.Weight)
	case o.Weight == 0 && !o.Proxy:
		return bad("Weight is 0; set Proxy for a member that owns nothing")
	case o.Proxy && len(o.Seeds) == 0:
		return bad("Proxy needs Seeds: a cluster's first member must own data")
	case o.MaxKeyBytes < 1 || o.MaxKeyBytes > hardKeyBytes:
		return bad("MaxKeyBytes is %d; use 1 to %d", o.MaxKeyBytes, hardKeyBytes)
	case o.MaxValueBytes < 1 || o.MaxValueBytes > hardValueBytes:
		return bad("MaxValueBytes is %d; use 1 to %d", o.MaxValueBytes, hardValueBytes)
	case o.MemoryBytes < 1<<20 || o.MemoryBytes > maxMemoryBytes:
		return bad("MemoryBytes is %d; use 1 MiB to 1 TiB", o.MemoryBytes)
	case o.HintBytes < 0:
		return bad("HintBytes is %d; use at least 1, or 0 for the default", o.HintBytes)
	case o.ColdAfter < 0:
		return bad("ColdAfter is negative; use 0 for the default")
	case o.ColdAfter > 0 && o.ColdDir == "":
		return bad("ColdAfter needs ColdDir: the directory for tables of that age")
	case o.MaxClockOffset < 0 || o.MaxRequest < 0 || o.GossipInterval < 0 || o.SuspectAfter < 0:
		return bad("MaxClockOffset, MaxRequest, GossipInterval and SuspectAfter must not be negative")
	case len(o.NodeID) > maxNameBytes || len(o.Cluster) > maxNameBytes || len(o.Zone) > maxNameBytes || len(o.DataCenter) > maxNameBytes || len(o.Advertise) > maxNameBytes:
		return bad("NodeID, Cluster, Zone, DataCenter and Advertise are at most %d bytes", maxNameBytes)
	case o.MaxRequest < time.Millisecond || o.GossipInterval < time.Millisecond || o.SuspectAfter < time.Millisecond:
		return bad("MaxRequest is %v, GossipInterval %v and SuspectAfter %v; use at least 1ms", o.MaxRequest, o.GossipInterval, o.SuspectAfter)
	case !isName(o.NodeID) || !isName(o.Cluster) || !isName(o.Zone) || !isName(o.DataCenter):
		return bad("NodeID is %q, Cluster %q, Zone %q and DataCenter %q; use printable characters, without blanks at either end", o.NodeID, o.Cluster, o.Zone, o.DataCenter)
	case o.Conflicts.mergesByNothing():
		return bad("Conflicts is MergeFunc(nil); give it a function")
	case o.Advertise != "" && o.Listen == "":
		return bad("Advertise needs Listen: there is nothing to reach")
	case (len(o.ClusterKey) > 0 || o.TLS != nil) && o.Listen == "":
		return bad("ClusterKey and TLS need Listen: there is no connection to protect")
	case o.TLS != nil && len(o.TLS.Certificates) == 0 && o.TLS.GetCertificate == nil && o.TLS.GetConfigForClient == nil:
		return bad("TLS has no certificate, and the others demand one")
	case len(o.ClusterKey) > 0 && len(o.ClusterKey) < 16:
		return bad("ClusterKey has %d bytes; use at least 16 random ones", len(o.ClusterKey))
	case len(o.Seeds) > 0 && o.Listen == "":
		return bad("Seeds need Listen: the other members must be able to reach this node")
	}
	if _, err := o.Read.required(o.N); err != nil {
		return bad("Read: %v", bare(err))
	}
	if _, err := o.Write.required(o.N); err != nil {
		return bad("Write: %v", bare(err))
	}
	for _, s := range o.Seeds {
		if o.Transport != nil && !strings.Contains(s, "://") {
			continue // an address in the words of that transport
		}
		if err := validateSeed(s); err != nil {
			return bad("Seeds: %v", err)
		}
	}
	for _, a := range []struct{ name, addr string }{{"Listen", o.Listen}, {"Advertise", o.Advertise}} {
		if a.addr == "" || o.Transport != nil {
			continue // none, or in the words of that transport
		}
		if err := validateAddr(a.addr); err != nil {
			return bad("%s: %v", a.name, err)
		}
	}
	if o.Listen != "" && o.Transport == nil && len(o.ClusterKey) == 0 && o.TLS == nil && !loopback(o.Listen) {
		return bad("Listen is %q, which is not a loopback address, without ClusterKey or TLS: anyone who reaches it could read and write; set ClusterKey (a shared secret) or TLS", o.Listen)
	}
	if o.Transport == nil && o.Advertise == "" && unspecified(o.Listen) {
		return bad("Listen is %q, every address of this machine: set Advertise to the one that peers can reach", o.Listen)
	}
	return nil
}

const (
	maxNameBytes   = 128
	maxMemoryBytes = 1 << 40
)

// isName reports whether s can stand in a table and a log: it is printable, with no
// blank at either end. It may be empty.
func isName(s string) bool {
	return utf8.ValidString(s) && strings.TrimSpace(s) == s && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// bare is the text of an ErrInvalid that becomes part of another one.
func bare(err error) string { return strings.TrimPrefix(err.Error(), ErrInvalid.Error()+": ") }

// unspecified reports whether addr stands for every address of the machine.
func unspecified(addr string) bool {
	i := strings.LastIndexByte(addr, ':')
	if i < 0 {
		return false
	}
	host := strings.Trim(addr[:i], "[]")
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

// loopback reports whether addr ("host:port") can only be reached from this
// machine.
func loopback(addr string) bool {
	i := strings.LastIndexByte(addr, ':')
	if i < 0 {
		return false
	}
	host := strings.Trim(addr[:i], "[]")
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// String prints the values with defaults filled in, one per line, secrets left
// out.
func (o Options) String() string {
	e := o.withDefaults("-")
	var b strings.Builder
	for _, l := range []struct {
		name  string
		value any
	}{
		{"NodeID", e.NodeID}, {"Cluster", e.Cluster}, {"Listen", e.Listen}, {"Advertise", e.Advertise},
		{"Zone", e.Zone}, {"DataCenter", e.DataCenter}, {"Seeds", e.Seeds}, {"Bootstrap", e.Bootstrap},
		{"N", e.N}, {"SloppyQuorum", e.SloppyQuorum}, {"Read", e.Read}, {"Write", e.Write}, {"Conflicts", e.Conflicts}, {"Partitions", e.Partitions}, {"Weight", e.Weight}, {"Proxy", e.Proxy},
		{"Sync", e.Sync}, {"MemoryBytes", e.MemoryBytes}, {"HintBytes", e.HintBytes}, {"ColdDir", e.ColdDir}, {"ColdAfter", e.ColdAfter}, {"MaxKeyBytes", e.MaxKeyBytes}, {"MaxValueBytes", e.MaxValueBytes},
		{"MaxClockOffset", e.MaxClockOffset}, {"MaxRequest", e.MaxRequest}, {"GossipInterval", e.GossipInterval},
		{"SuspectAfter", e.SuspectAfter}, {"ClusterKey", len(e.ClusterKey) > 0}, {"TLS", e.TLS != nil}, {"Seed", e.Seed},
	} {
		fmt.Fprintf(&b, "%-15s %v\n", l.name, l.value)
	}
	return b.String()
}
