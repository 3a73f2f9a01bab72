package main

import (
	"archive/tar"
	"compress/gzip"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(v string) error { *l = append(*l, v); return nil }

// image writes ROOTFS as an OCI image of one layer to the folder LAYOUT. The
// same files give the same digest: times are zero and root owns everything.
func image(args []string) error {
	var entrypoint, cmd, env list
	var user string
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.Var(&entrypoint, "entrypoint", "one word of the entry point (repeatable)")
	flags.Var(&cmd, "cmd", "one word of the command (repeatable)")
	flags.Var(&env, "env", "KEY=VALUE (repeatable)")
	flags.StringVar(&user, "user", "", "uid or uid:gid")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 3 {
		return fmt.Errorf("image: want ROOTFS NAME LAYOUT, got %q", flags.Args())
	}
	root, name, dir := flags.Arg(0), flags.Arg(1), flags.Arg(2)

	layer, err := tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return tarStream(root), nil },
		tarball.WithCompressionLevel(gzip.BestSpeed),
		tarball.WithMediaType(types.OCILayer),
		tarball.WithCompressedCaching,
	)
	if err != nil {
		return err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.AppendLayers(base, layer)
	if err != nil {
		return err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{Entrypoint: entrypoint, Cmd: cmd, Env: env, User: user, WorkingDir: "/"}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return err
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	// containerd's import takes the image's name from this annotation.
	return path.AppendImage(img, layout.WithAnnotations(map[string]string{"io.containerd.image.name": name}))
}

const capability = "security.capability"

// tarStream walks root in lexical order.
func tarStream(root string) io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		out := tar.NewWriter(w)
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || path == root {
				return err
			}
			return addEntry(out, root, path, entry)
		})
		if err == nil {
			err = out.Close()
		}
		w.CloseWithError(err)
	}()
	return r
}

func addEntry(out *tar.Writer, root, path string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	target := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	if header.Name, err = filepath.Rel(root, path); err != nil {
		return err
	}
	if info.IsDir() {
		header.Name += "/"
	}
	header.Uid, header.Gid, header.Uname, header.Gname = 0, 0, "", ""
	header.ModTime, header.AccessTime, header.ChangeTime = time.Unix(0, 0), time.Time{}, time.Time{}
	header.Format = tar.FormatPAX
	if info.Mode().IsRegular() {
		// File capabilities; of all extended attributes only these matter here.
		value := make([]byte, 64)
		if n, err := syscall.Getxattr(path, capability, value); err == nil {
			header.PAXRecords = map[string]string{"SCHILY.xattr." + capability: string(value[:n])}
		}
	}
	if err := out.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(out, file)
	return err
}
