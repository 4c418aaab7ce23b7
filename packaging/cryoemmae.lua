-- Module file for Lmod. Copy it to MODULEPATH/cryoemmae/0.4.0.lua and set root to the virtual environment.
-- Only the programs are put on the path: PYTHONPATH stays as it is, so RELION and CryoSPARC are not disturbed.
local root = "/opt/cryoemmae/0.4.0"
local programs = pathJoin(root, "programs")

whatis("Name: cryoemmae")
whatis("Version: 0.4.0")
whatis("Description: Particle picking for cryo-EM without a single label")
help([[
cryoemmae pick Micrographs/ --diameter 160 --out picks/
RELION: External executable cryoemmae-relion. CryoSPARC: cryoemmae-cryosparc.

Make the folder of programs once, so that the environment's python does not hide the user's:
  mkdir programs && cd programs && ln -s ../bin/cryoemmae ../bin/cryoemmae-relion ../bin/cryoemmae-cryosparc .
]])

prepend_path("PATH", programs)
