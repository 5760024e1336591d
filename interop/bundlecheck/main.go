// Command bundlecheck checks an evidence bundle with Go's own transparency-log code and none of Assay's:
// "bundlecheck BUNDLE TRUST".
//
// It believes the log's key in the trust file and nothing else: the checkpoint carries its signature, every record is
// proved to lie under that checkpoint, every tree that people signed over is a prefix of it, and of a whole log the root
// is recomputed from the records alone. What records mean is for assay verify. Exit 0 if all holds, 1 if not, 2 usage.
package main

import (
	"archive/zip"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: bundlecheck BUNDLE TRUST")
		os.Exit(2)
	}
	trust, err := os.ReadFile(os.Args[2])
	must(err, "trust file")
	files := readBundle(os.Args[1])
	tree, origin := openCheckpoint(files["checkpoint"], string(trust))
	leaves, consistent := make(map[int64]tlog.Hash), 0
	for name, body := range files {
		if !strings.HasPrefix(name, "records/") {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSuffix(name[8:], ".json"), 10, 64)
		demand(err == nil && name == fmt.Sprintf("records/%d.json", n), name+" is no record's name")
		leaves[n] = tlog.RecordHash([]byte(body))
		// A proof file ends in the checkpoint that it leads to, which must be this one.
		proof := fmt.Sprintf("proofs/%d.tlog-proof", n)
		head, ok := strings.CutPrefix(files[proof], fmt.Sprintf("c2sp.org/tlog-proof@v1\nindex %d\n", n))
		hashes, ok2 := strings.CutSuffix(head, "\n"+files["checkpoint"])
		demand(ok && ok2, proof+" is missing, or of another record or checkpoint")
		must(tlog.CheckRecord(readHashes(hashes), tree.N, tree.Hash, n, leaves[n]), name)
		if size, root, signed := approval(body); signed && size == tree.N {
			demand(root == tree.Hash, name+" was signed over another root")
		} else if signed {
			proof := fmt.Sprintf("consistency/%d-%d", size, tree.N)
			must(tlog.CheckTree(readHashes(files[proof]), tree.N, tree.Hash, size, root), proof)
			consistent++
		}
	}
	whole := int64(len(leaves)) == tree.N
	demand(!whole || recompute(leaves) == tree.Hash, "the records lead to another root")
	fmt.Printf("ok: %s, %d of %d records proved, %d approvals over a prefix, root recomputed: %t\n",
		origin, len(leaves), tree.N, consistent, whole)
}

// openCheckpoint verifies the signature by the trust file's log key and reads size, root and origin.
func openCheckpoint(signed, trust string) (tlog.Tree, string) {
	_, vkey, _ := strings.Cut("\n"+trust, "\nlog ")
	vkey, _, _ = strings.Cut(vkey, "\n")
	verifier, err := note.NewVerifier(strings.TrimSpace(vkey))
	must(err, "log key of the trust file")
	opened, err := note.Open([]byte(signed), note.VerifierList(verifier))
	must(err, "checkpoint")
	lines := strings.Split(opened.Text, "\n")
	demand(len(lines) == 4 && lines[0] == verifier.Name(), "the checkpoint is malformed or of another log")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	must(err, "size of the checkpoint")
	root, err := tlog.ParseHash(lines[2])
	must(err, "root of the checkpoint")
	return tlog.Tree{N: size, Hash: root}, lines[0]
}

// readHashes reads one base64 hash a line.
func readHashes(text string) (hashes []tlog.Hash) {
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if text != "" {
			hash, err := tlog.ParseHash(line)
			must(err, "hash of a proof")
			hashes = append(hashes, hash)
		}
	}
	return hashes
}

// approval tells which tree a person signed over, if the record is a person's decision.
func approval(body string) (size int64, root tlog.Hash, signed bool) {
	var record struct {
		Type      string `json:"type"`
		Statement struct {
			Predicate struct {
				Size int64  `json:"evidence_size"`
				Root string `json:"evidence_root"`
			} `json:"predicate"`
		} `json:"statement"`
	}
	if json.Unmarshal([]byte(body), &record) != nil || record.Type != "approval.decided" {
		return
	}
	raw, err := hex.DecodeString(record.Statement.Predicate.Root)
	demand(err == nil && copy(root[:], raw) == tlog.HashSize, "an approval names no root")
	return record.Statement.Predicate.Size, root, true
}

// recompute builds the tree from its leaves alone.
func recompute(leaves map[int64]tlog.Hash) tlog.Hash {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(at []int64) (out []tlog.Hash, err error) {
		for _, i := range at {
			out = append(out, stored[i])
		}
		return out, nil
	})
	for n := int64(0); n < int64(len(leaves)); n++ {
		more, err := tlog.StoredHashesForRecordHash(n, leaves[n], reader)
		must(err, "tree")
		stored = append(stored, more...)
	}
	root, err := tlog.TreeHash(int64(len(leaves)), reader)
	must(err, "tree")
	return root
}

func readBundle(path string) map[string]string {
	archive, err := zip.OpenReader(path)
	must(err, "bundle")
	files := make(map[string]string)
	for _, file := range archive.File {
		stream, err := file.Open()
		must(err, file.Name)
		data, err := io.ReadAll(stream)
		must(err, file.Name)
		files[file.Name] = string(data)
	}
	return files
}

func demand(holds bool, what string) {
	if !holds {
		fmt.Println("INVALID:", what)
		os.Exit(1)
	}
}

func must(err error, what string) {
	demand(err == nil, fmt.Sprintf("%s: %v", what, err))
}
