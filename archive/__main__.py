from archive.command import main

main()
