# For scripts that build on one core: copies what a build needs into the folder $work and goes there. PyTorch's headers
# take most of the time, so all files of a folder are compiled as one: what each names for itself has a name of its own.
cp -R "$root/csrc" "$root/maskbench" "$root/setup.py" "$root/pyproject.toml" "$work"
rm -f "$work"/maskbench/_C.*
touch "$work/README.md"  # what pyproject.toml names
cd "$work"
sed -i 's/"-O3"/"-O1"/' setup.py  # minutes less of compiling
for folder in csrc csrc/cpu; do
    for file in "$folder"/*.cpp; do
        mv "$file" "${file%.cpp}.inc"
    done
    (cd "$folder" && printf '#include "%s"\n' *.inc > all.cpp)
done
